"""The Redis server: location, connections, scripts, failures, layout and checks."""
