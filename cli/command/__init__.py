"""One module per family of commands. Each is a client of the running node, but for those that need none."""
