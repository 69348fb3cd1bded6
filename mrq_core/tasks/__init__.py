"""What the author of a task reads: tasks, their options, and how they are found."""
