"""Hooks, and the plugins that implement them."""
