"""What mrq is measured beside: an application for each system, and how each is set up (`registry.py`).

An application (`with_*.py`) runs in its system's own environment, where nothing of ours is installed.
"""
