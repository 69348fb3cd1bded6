"""Enqueueing jobs, and asking about them."""
