"""The ``copy`` command: complete backups go into another target, which lacks them."""
