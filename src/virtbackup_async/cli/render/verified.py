"""What ``verify`` found, in text: a line a backup, the bad ones last, where they are seen.

::

    web: 20260701-030000_3_web: good
    db: 20260701-030000_4_db: FAILED: 20260701-030000_4_db_vda.qcow2 is not what was backed up
    2 backups verified: 1 good, 1 FAILED
"""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.text import count, printable
from virtbackup_async.cli.render.words import found_good
from virtbackup_async.events import VerifyDone, VerifyFailed


def print_verified(console: Console, found: Sequence[VerifyDone | VerifyFailed]) -> None:
    """Write a line for each backup, and the counts."""
    done = [event for event in found if isinstance(event, VerifyDone)]
    failed = [event for event in found if isinstance(event, VerifyFailed)]
    for good in sorted(done, key=lambda event: (event.domain, event.backup)):
        _print(console, f"{good.domain}: {good.backup}: {found_good(good)}")
    for bad in failed:
        _print(console, f"{bad.domain}: {bad.backup}: FAILED: {bad.error}")
    unproved = sum(not event.digests for event in done)
    words = [f"{len(done) - unproved} good"]
    words += [f"{unproved} readable, no digest"] if unproved else []
    words += [f"{len(failed)} FAILED"] if failed else []
    _print(console, f"{count(len(found), 'backup')} verified: {', '.join(words)}")


def _print(console: Console, text: str) -> None:
    console.print(Text(printable(text)), soft_wrap=True)
