"""Whether a virt-backup runs on this host: it holds no lock that would tell that it works.

Its pending files look the same while it works and after it was killed. Undoing the former would
pull its overlay from under it. Source: proc(5), ``/proc/PID/cmdline``.
"""

from pathlib import Path

from anyio import to_thread

from virtbackup_async.errors import LockHeldError

_NAMES = frozenset({b"virt-backup", b"virt_backup"})
_MAX_WORDS = 6


async def refuse_while_virt_backup_runs(backup: str) -> None:
    """Leave ``backup``, a pending one of virt-backup, alone while any virt-backup runs.

    Raises:
        LockHeldError: one does; it need not be the owner, but it cannot be told.
    """
    pid = await to_thread.run_sync(_running)
    if pid is not None:
        raise LockHeldError(
            f"virt-backup runs as process {pid}, and {backup} may be what it works on",
            hint="Let it end, or stop it, then run the command again.",
        )


def _running() -> int | None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended, or is not ours to look at
        if any(word.rsplit(b"/", 1)[-1] in _NAMES for word in words[:_MAX_WORDS]):
            return int(process.name)
    return None
