"""Tests of the MongoDB broker, on real servers."""
