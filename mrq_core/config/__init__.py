"""The settings (`settings`), and the sources of their values (`sources`)."""
