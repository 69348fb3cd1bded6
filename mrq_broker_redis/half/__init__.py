"""Entries of a queue whose records are in another store."""
