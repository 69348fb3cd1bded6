"""The driver `redis`: queues and full job records in Redis, claimed by pushback.

Entry point: `plugin`. The scripts that change anything are in `lua/`.
"""
