"""Code that the command line and a dashboard share: what they list, change and check.

Its rooms are queries, bulk actions, measurements, explanations and checks.
"""
