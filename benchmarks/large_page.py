"""The page of a large site: 1,000 guests with 400 backups each, and the runs of a quarter.

Run as a program it makes the facts, and with `--page` the overview and the page of them as well:
the difference is what the page costs.
"""

import sys

from fakes.overview_facts import backup, domain_run, facts, guest, run, target
from virtbackup_async.model.facts import Facts
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.page.page import render_page

GUESTS, BACKUPS = 1_000, 400
NIGHTS, NIGHTS_WITH_DOMAINS, NIGHTS_UNREAD = 90, 30, 3


def large_facts(guests: int = GUESTS, backups: int = BACKUPS) -> Facts:
    """Return the facts of the site; `verify` has read all but the last three nights."""
    names = [f"vm-{number:04}" for number in range(guests)]
    made = [
        guest(name, [_backup(night, name) for night in reversed(range(backups))]) for name in names
    ]
    runs = [
        run(night, [domain_run(name, night) for name in names if night < NIGHTS_WITH_DOMAINS])
        for night in reversed(range(NIGHTS))
    ]
    return facts(*made, targets=[target(history=runs)])


def _backup(night: int, name: str) -> object:
    return backup(night, name, verified=None if night < NIGHTS_UNREAD else True)


if __name__ == "__main__":
    known = large_facts()
    if "--page" in sys.argv:
        print(len(render_page(build_overview(known))))
