"""Builders of facts: guests, backups, targets and runs as they are at 08:00 one morning.

Each builder fills in what a healthy site has; a test says only what differs.
"""

from datetime import UTC, datetime

from virtbackup_async.model.facts import (
    BackupFacts,
    BrokenFacts,
    Facts,
    GuestFacts,
    RepositoryFacts,
    TargetFacts,
)
from virtbackup_async.model.run_record import DomainRun, Outcome, RunRecord

GIB = 1 << 30
MIB = 1 << 20
HOUR = 3600
DAY = 86_400
NOW = int(datetime(2026, 11, 30, 8, tzinfo=UTC).timestamp())
NIGHT = NOW - 6 * HOUR
"""02:00 of that morning, when the backups are made."""
TARGET = "/mnt/backups"
GROUP = "production"


def name_of(date, domain="web"):
    return f"{datetime.fromtimestamp(date, UTC):%Y%m%d-%H%M%S}_3_{domain}"


def backup(nights_ago=0, domain="web", **different):
    """A quiesced backup of one disk, made so many nights ago, verified in the same night."""
    date = different.pop("date", NIGHT - nights_ago * DAY)
    usual = {
        "verified": True,
        "verified_date": date + 2 * HOUR,
        "quiesced": True,
        "size_bytes": 40 * GIB,
        "data_bytes": 20 * GIB,
        "stored_bytes": 200 * MIB,
        "read_bytes": 400 * MIB,
        "frozen_ms": 300,
    }
    if different.get("verified", True) is None:
        usual["verified_date"] = None
    return BackupFacts(name_of(date, domain), date, **{**usual, **different})


def guest(domain="web", backups=None, **different):
    """A guest with a backup of each of the last 40 nights."""
    if backups is None:
        backups = [backup(night, domain) for night in range(39, -1, -1)]
    broken = tuple(BrokenFacts(*one) for one in different.pop("broken", ()))
    usual = {"group": GROUP, "target": TARGET, "max_age_s": 26 * HOUR, "is_known": True}
    return GuestFacts(
        domain=domain, backups=tuple(backups), broken=broken, **{**usual, **different}
    )


def domain_run(domain="web", nights_ago=0, outcome=Outcome.DONE, **different):
    """Two minutes of one domain in a nightly run."""
    start = different.pop("start", NIGHT - nights_ago * DAY + 10.0)
    made = outcome in (Outcome.DONE, Outcome.VERIFIED, Outcome.DAMAGED)
    usual = {
        "group": GROUP,
        "end": start + 120,
        "backup": name_of(int(start) - 10, domain) if made else None,
        "phases": (("preparing", 0.0), ("freezing", 4.0), ("copying", 4.5), ("finishing", 110.0)),
        "read_bytes": 400 * MIB,
        "data_bytes": 20 * GIB,
        "stored_bytes": 200 * MIB,
        "frozen_ms": 300,
    }
    if outcome == Outcome.FAILED:
        usual["error"] = "the image of vda is missing"
    return DomainRun(domain=domain, outcome=outcome, start=start, **{**usual, **different})


def run(nights_ago=0, domains=(), command="backup", **different):
    """A run of twenty minutes."""
    start = different.pop("start", NIGHT - nights_ago * DAY + 0.0)
    usual = {
        "run_id": f"{command}-{start:.0f}",
        "host": "host1",
        "version": "1.3.0",
        "end": start + 1200,
        "exit_code": 0,
        "used_bytes": max(1, 400 - nights_ago) * GIB,
        "free_bytes": (600 + nights_ago) * GIB,
    }
    return RunRecord(command=command, start=start, domains=tuple(domains), **{**usual, **different})


def target(path=TARGET, history=(), **different):
    """A target with a repository, 400 of 1000 GiB full."""
    usual = {
        "groups": (GROUP,),
        "used_bytes": 400 * GIB,
        "free_bytes": 600 * GIB,
        "repository": RepositoryFacts(8000 * GIB, 500 * GIB, 300 * GIB),
    }
    if different.get("error") is not None:
        usual |= {"used_bytes": None, "free_bytes": None, "repository": None}
    return TargetFacts(path, **{**usual, "history": tuple(history), **different})


def facts(*guests, targets=None, **different):
    """One group, backed up each night, and all that goes with it."""
    usual = {
        "at": NOW,
        "host": "host1",
        "version": "1.3.0",
        "config": "/etc/virt-backup/config.yml",
        "groups": ((GROUP, True),),
        "targets": tuple([target()] if targets is None else targets),
    }
    return Facts(guests=guests, **{**usual, **different})
