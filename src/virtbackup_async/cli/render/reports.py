"""The commands' reports in text, each loaded when it is made.

They need rich, a tenth of a command's start: with ``--json`` nothing has to wait for it.
"""
# ruff: noqa: PLC0415 -- that is what this module is for

from virtbackup_async.cli.render.report import Report


def result() -> Report:
    """What a backup, a restore or an export came to."""
    from virtbackup_async.cli.render.result import Result

    return Result()


def cleaned(*, dry_run: bool) -> Report:
    """What was removed, or would be."""
    from virtbackup_async.cli.render.cleaned import Cleaned

    return Cleaned(dry_run)


def pins() -> Report:
    """What is pinned, or no more."""
    from virtbackup_async.cli.render.cleaned import Pins

    return Pins()


def verified() -> Report:
    """What was found in the backups."""
    from virtbackup_async.cli.render.verified import Verified

    return Verified()


def listing(*, short: bool, detailed: bool) -> Report:
    """The backups there are."""
    from virtbackup_async.cli.render.listing import Listing

    return Listing(short=short, detailed=detailed)


def stats() -> Report:
    """How much the backups hold and take."""
    from virtbackup_async.cli.render.stats import Stats

    return Stats()


def checkup(*, all_is_shown: bool, counted: str) -> Report:
    """What was looked at, and found wrong; ``counted`` is the noun for it."""
    from virtbackup_async.cli.render.checkup import Checkup

    return Checkup(all_is_shown=all_is_shown, counted=counted)
