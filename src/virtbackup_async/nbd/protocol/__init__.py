"""The NBD protocol: pure, no I/O."""
