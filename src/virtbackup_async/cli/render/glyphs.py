"""The glyphs that reports and the live view draw with."""

from msgspec import Struct
from rich.console import Console


class Glyphs(Struct, frozen=True):
    """The glyphs to draw with; a word next to each says the same."""

    at_work: str
    undoing: str
    done: str
    failed: str
    warning: str
    full: str
    empty: str
    ellipsis: str


UNICODE = Glyphs("▸", "↩", "✓", "✗", "!", "━", "╌", "…")
ASCII = Glyphs(">", "<", "+", "x", "!", "#", "-", "~")


def glyphs_for(console: Console) -> Glyphs:
    """Return the glyphs that the console's encoding has; ASCII for a pipe."""
    return UNICODE if console.is_terminal and not console.options.ascii_only else ASCII
