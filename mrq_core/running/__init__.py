"""What a task's code can reach while it runs."""
