"""Shared state, logs, metrics, signals and waiting of the model."""
