"""One module for each command; ``cli.main`` imports it when the command is run."""
