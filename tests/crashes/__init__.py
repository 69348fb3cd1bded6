"""What the tests share in which processes are killed between any two calls of a server."""
