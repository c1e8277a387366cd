"""A recovery key as it is printed: text to type, and the same as a QR code."""

import io
from collections.abc import Iterator

from virtbackup_async.reporting.text import printable

_GROUPS_A_LINE = 4


def lines_of(target: str, text: str) -> Iterator[str]:
    """Yield the lines of a sheet.

    Args:
        target: whose repository the key opens.
        text: the key, ``virtbackup-recovery-1:`` and groups of letters.
    """
    kind, _, letters = text.partition(":")
    groups = letters.split("-")
    yield "Recovery key of the backups in"
    yield f"    {printable(target)}"
    yield ""
    yield f"    {kind}:"
    for first in range(0, len(groups), _GROUPS_A_LINE):
        yield f"    {'-'.join(groups[first : first + _GROUPS_A_LINE])}"
    yield ""
    yield from _code(text)
    yield "Whoever has this sheet and can read the target can read its backups. To use it:"
    yield "    virtbackup key add --target DIR --recovery --new-key-file FILE"


def _code(text: str) -> Iterator[str]:
    try:
        import segno  # noqa: PLC0415 -- optional
    except ImportError:
        return
    drawn = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(drawn, compact=True)
    yield from drawn.getvalue().rstrip("\n").split("\n")
    yield ""
