"""Prints the first sentence of a page, and where the page is (``report``).

::

    All 42 guests can be restored to last night.
    /var/www/html/backups/index.html
"""

from typing import Final

from rich.console import Console

from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.events import Summary
from virtbackup_async.reporting.reports.page import PageReport

_STYLES: Final = {"good": GOOD, "look": LOOK}


def print_page(report: PageReport, console: Console, summary: Summary) -> None:  # noqa: ARG001 -- all reports take it
    """Print the sentence and the file of each page."""
    for page in report.written:
        style = _STYLES.get(page.standing, BAD)
        print_line(console, page.verdict, style)
        print_line(console, page.file)
