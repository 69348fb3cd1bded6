"""Measurements. They are no tests: nothing passes or fails by the speed of a machine.

`nox -s bench` runs them all, several times, and prints medians. What is compared is compared
within one run: ours and the peer's take turns on the same machine.
"""
