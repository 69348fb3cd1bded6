"""Tests of the Redis broker, on real servers."""
