"""``python -m virtbackup_async``: the same command as ``virtbackup``."""

from virtbackup_async.cli.main import main

if __name__ == "__main__":
    main()
