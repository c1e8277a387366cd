"""Chooses the renderer: what the admin asked for, and what the terminal can do."""

import os
import sys

from virtbackup_async.cli.render.reports import MakeReport, Report
from virtbackup_async.cli.settings import Settings
from virtbackup_async.reporting.interface import Renderer
from virtbackup_async.reporting.json_lines import JsonLines


def choose_renderer(settings: Settings, report: MakeReport | None) -> Renderer:
    """JSON lines, silence, the live view or plain lines, in this order of precedence."""
    # Where the locale has no sign for it, a name is shown escaped rather than not at all.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if settings.json:
        return JsonLines(sys.stdout, sys.stderr)
    return _text_renderer(settings, report() if report else None)


def _text_renderer(settings: Settings, report: Report | None) -> Renderer:
    # They need rich, see render/reports.py.
    from virtbackup_async.cli.render.console import text_console  # noqa: PLC0415 -- see above
    from virtbackup_async.cli.render.live import LiveView  # noqa: PLC0415 -- see above
    from virtbackup_async.cli.render.plain import Plain, Quiet  # noqa: PLC0415 -- see above

    out = text_console(sys.stdout)
    if settings.quiet:
        return Quiet(out, sys.stderr, report)
    if settings.progress and _can_redraw():
        return LiveView(out, text_console(sys.stderr), report)
    return Plain(
        out,
        sys.stderr,
        report,
        progress=settings.progress,
        phases=settings.verbose or settings.debug,
    )


def _can_redraw() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
