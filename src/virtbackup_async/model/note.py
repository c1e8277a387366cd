"""What an admin wants to remember of a backup, as ``backup --note`` takes it."""

import unicodedata
from typing import Final

from virtbackup_async.errors import ConfigError

MAX_CHARACTERS: Final = 500

# Control characters and surrogates; line and paragraph separators.
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def checked_note(text: str | None) -> str | None:
    """Return a note without the blanks around it; None for one that is empty.

    Raises:
        ConfigError: it is no line of text, or too long.
    """
    note = (text or "").strip()
    for character in note:
        if unicodedata.category(character) in _REFUSED:
            raise ConfigError(
                f"the note has a control character, {character!a}",
                hint="Write it as one line of text.",
            )
    if len(note) > MAX_CHARACTERS:
        raise ConfigError(
            f"the note has {len(note)} characters", hint=f"Up to {MAX_CHARACTERS} are kept."
        )
    return note or None
