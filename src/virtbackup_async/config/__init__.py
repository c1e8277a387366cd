"""The configuration file: how it is read and checked."""
