"""Raw queues: their parameters and claims."""
