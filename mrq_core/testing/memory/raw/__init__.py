"""Raw queues of the model."""
