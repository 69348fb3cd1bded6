"""The embedded driver: queue, records, logs and shared state in one SQLite file, without a server."""
