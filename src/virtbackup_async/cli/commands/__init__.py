"""One module a command, loaded by ``cli.main`` when that command is typed."""
