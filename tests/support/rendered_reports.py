"""All reports that commands print, and what of a text a terminal would obey."""

import unicodedata

from virtbackup_async.cli.render import reports

REPORTS = {
    "run": reports.run,
    "preview": reports.preview,
    "clean": lambda: reports.clean(dry_run=False),
    "clean --dry-run": lambda: reports.clean(dry_run=True),
    "pins": reports.pins,
    "verify": reports.verify,
    "list": lambda: reports.listing(by_domain=lambda: True),
    "list DOMAIN": reports.listing,
    "list -D DOMAIN": lambda: reports.listing(detailed=True),
    "list -s": lambda: reports.listing(short=True),
    "show": reports.show,
    "diff": reports.diff,
    "check": reports.health,
    "log": reports.log,
    "status": reports.status,
    "stats": reports.stats,
    "findings": reports.findings,
    "doctor": lambda: reports.findings(folded=True),
    "init": lambda: reports.init(all_shown=True),
    "page": reports.page,
}


def obeyed(text: str) -> set[str]:
    """Return the characters that a terminal would obey, but for the ends of lines."""
    unsafe = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return {c for c in text if unicodedata.category(c) in unsafe and c != "\n"}
