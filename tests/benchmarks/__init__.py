"""Measurements. They are no tests: nothing passes or fails by the speed of a machine.

`nox -s bench` runs them all, several times, and prints medians. All systems are measured by the same code and
take turns on one machine: `workloads.py` says what is measured, `ours.py` and `peers/registry.py` of what.
"""
