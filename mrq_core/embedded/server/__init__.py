"""The SQLite file: its location, connections, layout, failures and checks."""
