"""The ``list``, ``show``, ``stats``, ``pin`` and ``unpin`` commands; the choice of one backup."""
