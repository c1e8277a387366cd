"""Notifies people of the end of a run, through Apprise (mail, chat, push and many more).

Apprise is optional: it is imported when there is somebody to notify, and one warning reports that
it is missing. The URLs contain passwords, so no message repeats them.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from virtbackup_async.config.schema import NotifySettings
from virtbackup_async.errors import install_hint
from virtbackup_async.events import Summary

if TYPE_CHECKING:
    import apprise

MISSING = f"nobody was notified: apprise is not installed. {install_hint('apprise')}"


async def notify(settings: NotifySettings, title: str, summary: Summary) -> str | None:
    """Send the notification if the settings want it; return a warning if that failed."""
    is_well = summary.ok and not summary.contradictions
    if not settings.urls or (is_well and settings.on != "always"):
        return None
    return await send(settings.urls, title, body(summary))


async def send(
    urls: Sequence[str], title: str, text: str, attached: Path | None = None
) -> str | None:
    """Send a message, with a file if there is one; return a warning if that failed."""
    return await to_thread.run_sync(_send, urls, title, text, attached)


def body(summary: Summary) -> str:
    """Return the result of a run: its error, what was done, what failed, a line each.

    The heads come last: whoever keeps the message can compare them with the target later.
    """
    lines = [*summary.contradictions]
    lines += [summary.error] if summary.error else []
    lines += [f"done: {', '.join(summary.done)}"] if summary.done else []
    lines += [f"failed: {', '.join(summary.failed)}"] if summary.failed else []
    lines += [f"head: {head}" for head in summary.heads]
    return "\n".join(lines) or "nothing to do"


def _send(urls: Sequence[str], title: str, text: str, attached: Path | None) -> str | None:
    try:
        import apprise  # noqa: PLC0415 -- optional, and slow to import
    except ImportError:
        return MISSING
    # Its log repeats URLs.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    failed = 0
    for url in urls:
        service = apprise.Apprise()
        if not service.add(url) or not _notify(service, title, text, attached):
            failed += 1
    if not failed:
        return None
    return f"{failed} of {len(urls)} notifications could not be sent: check `notify.urls`"


def _notify(service: "apprise.Apprise", title: str, text: str, attached: Path | None) -> bool:
    if attached is None:
        return bool(service.notify(body=text, title=title))
    return bool(service.notify(body=text, title=title, attach=str(attached)))
