"""Findings of `mrq check`: settings, tasks, and what a broker keeps twice."""
