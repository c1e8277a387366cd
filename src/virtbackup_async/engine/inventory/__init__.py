"""The ``list``, ``stats``, ``pin`` and ``unpin`` commands, and the choice of one backup."""
