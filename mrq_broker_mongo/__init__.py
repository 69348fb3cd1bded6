"""The broker on MongoDB: queues and records in one collection, claimed by guarded updates.

`plugin` announces it; nothing else here is loaded before the broker is opened.
"""
