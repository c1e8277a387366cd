"""The command line: the only layer that draws, prints and exits."""
