"""The MongoDB deployment: location, connections, failures, layout and checks."""
