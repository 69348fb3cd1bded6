"""What holds whatever the code of a task does: threads, signals, logs, and what all jobs share."""
