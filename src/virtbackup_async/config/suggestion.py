"""Suggests the known word nearest to an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the word of ``known`` most similar to ``word``; None if none is similar."""
    close = get_close_matches(word, list(known), n=1)
    return close[0] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` to append to a message, or nothing."""
    found = nearest(word, known)
    return f", did you mean {found!r}?" if found else ""
