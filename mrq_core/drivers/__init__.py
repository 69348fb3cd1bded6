"""Code that several drivers share."""
