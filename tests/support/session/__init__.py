"""A recorded session: see ``__main__.py``."""
