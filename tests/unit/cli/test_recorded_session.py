"""scripts/record-session: what it types exists, and the page shows each of its pictures."""

import re
from pathlib import Path

import pytest

from command_lines import commands_of, parse
from session.steps import PICTURES, SIZES, STEPS, file_of, pictures

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "tutorial" / "in-pictures.md"
LINKED = re.compile(r"^\[!\[[^]]+\]\(([^)]+)\)\]\(([^)]+)\)$", re.MULTILINE)
WORDS = re.compile(r"<text [^>]*>([^<]*)</text>")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.picture)
def test_each_step_is_one_command_that_exists(step):
    (words,) = commands_of(step.command)
    parse(words)


def test_the_session_goes_from_nothing_to_a_restored_guest():
    typed = [next(commands_of(step.command))[0] for step in STEPS]
    assert list(dict.fromkeys(typed)) == ["init", "doctor", "backup", "list", "show", "restore"]


def test_each_picture_is_kept_in_both_sizes_and_no_other():
    kept = {file.relative_to(ROOT) for file in (ROOT / PICTURES).iterdir()}
    assert kept == {file_of(picture, size) for picture in pictures() for size in SIZES}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.picture)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_picture_is_of_its_command(step, size):
    names = [*(moment.picture for moment in step.meanwhile), step.picture]
    for name in names:
        title = WORDS.search((ROOT / file_of(name, size)).read_text())[1]
        assert title.replace("&#160;", " ").replace("&#x27;", "'") == step.command


def test_the_page_shows_each_picture_in_order_and_leads_to_the_wide_one():
    narrow, wide = SIZES
    shown = [
        tuple((PAGE.parent / path).resolve() for path in paths)
        for paths in LINKED.findall(PAGE.read_text())
    ]
    assert shown == [(ROOT / file_of(p, narrow), ROOT / file_of(p, wide)) for p in pictures()]


def test_the_page_names_each_command_as_it_was_typed():
    text = PAGE.read_text()
    assert [step.command for step in STEPS if f"    {step.command}\n" not in text] == []
