"""What may be a note: one line of text, which can be shown on a terminal."""

import pytest

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.note import MAX_CHARACTERS, checked_note


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (None, None),
        ("", None),
        (" \t\n", None),
        (" before the upgrade ", "before the upgrade"),
        ("für Zoë 👩\u200d🚀", "für Zoë 👩\u200d🚀"),
        ("x" * MAX_CHARACTERS, "x" * MAX_CHARACTERS),
    ],
)
def test_a_note_is_kept_without_the_blanks_around_it(text, kept):
    assert checked_note(text) == kept


@pytest.mark.parametrize(
    "text", ["two\nlines", "a\tb", "\x1b[2J", "bell\a", "nul\0", "\udcff", "a\u2028b", "a\x85b"]
)
def test_what_could_move_the_cursor_is_no_note(text):
    with pytest.raises(ConfigError, match="control character") as caught:
        checked_note(f"begins {text} ends")
    assert str(caught.value).isprintable()


def test_a_long_note_is_refused_and_not_cut():
    with pytest.raises(ConfigError, match="has 501 characters"):
        checked_note("x" * (MAX_CHARACTERS + 1))
