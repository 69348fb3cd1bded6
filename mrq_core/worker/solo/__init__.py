"""Solo jobs: attempts that each run in a separate process, and the server that forks these processes."""
