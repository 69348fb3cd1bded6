"""The command line: where configuration, plugins, broker and worker are put together."""
