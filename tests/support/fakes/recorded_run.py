"""Events as the engine says them, and moments without a clock: what renderers are fed."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    BackupStarted,
    DiskDone,
    DiskProgress,
    DiskSkipped,
    ListedBackup,
    Phase,
    PhaseChanged,
    RunStarted,
    Summary,
    Warned,
)
from virtbackup_async.reporting.interface import Moment

GIB = 1024**3
HOSTILE = "evil\x1b[2J[red]\u202e"
_START = datetime(2026, 7, 1, 3, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))


def at(seconds: float) -> Moment:
    """The moment that many seconds into the run."""
    return Moment(_START + timedelta(seconds=seconds), seconds)


def started(domain: str = "web", *disks: str) -> BackupStarted:
    return BackupStarted("main", domain, f"20260701-030000_1_{domain}", disks or ("vda",))


def done(
    domain: str = "web", *, quiesced: bool | None = True, not_quiesced: str | None = None
) -> BackupDone:
    backup = f"20260701-030000_1_{domain}"
    return BackupDone(
        "main",
        domain,
        backup,
        f"/b/{domain}/{backup}.json",
        quiesced,
        120,
        4 * GIB,
        GIB,
        52.0,
        read_bytes=4 * GIB,
        not_quiesced=not_quiesced,
        sequence=7,
        definition_hash="blake3:" + "9f86d081884c7d65" * 4,
    )


def failed(domain: str = "db", **more: Any) -> BackupFailed:
    why = "the snapshot was refused"
    return BackupFailed("main", domain, f"{domain}: {why}", 10, reason=why, **more)


def progress(domain: str, disk: str, done_gib: float, total_gib: float = 4) -> DiskProgress:
    return DiskProgress(domain, disk, int(done_gib * GIB), int(total_gib * GIB))


def disk_done(domain: str = "web", disk: str = "vda") -> DiskDone:
    return DiskDone(domain, disk, f"{disk}.qcow2", 10 * GIB, 4 * GIB, "blake3-256k:00")


def listed(domain: str, day: int, group: str = "main") -> ListedBackup:
    date = datetime(2026, 7, day, 12, tzinfo=UTC).isoformat()
    backup = f"202607{day:02}-120000_1_{domain}"
    path = f"/b/{domain}/{backup}.json"
    return ListedBackup(
        group, domain, backup, date, path, ("vda", "vdb"), "tar", 10 * GIB, GIB, quiesced=True
    )


def summary(code: int = 0) -> Summary:
    return Summary(ok=code == 0, done=("web",), failed=(), exit_code=code)


def whole_run() -> list[tuple[object, Moment]]:
    """Two domains of three: one well, one failed, one that waits; five seconds of copying."""
    events = [
        RunStarted("backup", ("web", "db", HOSTILE)),
        Warned("an old option: threads"),
        started("web", "vda", "vdb"),
        PhaseChanged("web", Phase.COPYING),
        *(progress("web", "vda", gib) for gib in (0, 1, 2, 3, 4)),
        PhaseChanged("web", Phase.COMMITTING, "vda"),
        disk_done("web", "vda"),
        DiskSkipped("web", "vdc", "it is a host device"),
        started("db"),
        failed("db"),
        done("web"),
    ]
    return [(event, at(number / 2)) for number, event in enumerate(events)]
