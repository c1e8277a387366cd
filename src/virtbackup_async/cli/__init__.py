"""The command line: what the admin types and sees. The only layer that draws, prints and exits."""
