"""The ``verify`` and ``repair`` commands."""
