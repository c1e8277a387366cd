"""The version of the program, where every layer may read it."""

__version__ = "1.1.0"
