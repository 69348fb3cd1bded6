"""`mrq worker --processes N`: a parent process that starts, watches and replaces N workers.

The parent imports neither gevent nor a driver, and opens no broker. Each worker is a new interpreter, in a
new session. `worker/parent_link.py` is the worker's end of its two pipes.
"""
