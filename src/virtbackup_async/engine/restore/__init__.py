"""The ``restore`` and ``export`` commands."""
