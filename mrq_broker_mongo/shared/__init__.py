"""State, logs, metrics, signals and waiting, which all processes share."""
