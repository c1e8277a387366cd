"""``python -m virtbackup_async``: the same command as ``virtbackup``."""

from virtbackup_async.cli.main import run_and_end

if __name__ == "__main__":
    run_and_end()
