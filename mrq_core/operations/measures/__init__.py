"""Measurements of an installation over time, its state as a whole, and what has changed."""
