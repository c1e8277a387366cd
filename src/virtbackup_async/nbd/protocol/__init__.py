"""The NBD protocol, without input or output."""
