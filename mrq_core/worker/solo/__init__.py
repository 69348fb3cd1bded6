"""Solo jobs: attempts that run in a process of their own, and the server that forks these processes."""
