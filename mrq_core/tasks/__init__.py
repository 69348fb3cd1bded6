"""What the author of a task reads.

`task`: the class `Task` and the decorator `@task`. `options`: the options of a task. `retry`: retry rules.
`loading`: from a path to a task with its options.
"""
