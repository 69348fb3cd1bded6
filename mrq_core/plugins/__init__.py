"""Every hook (`hookspecs`), and the manager that finds plugins and opens the broker (`manager`)."""
