"""Each command that a page shows exists, with these options, and takes these arguments."""

import contextlib
import re
from pathlib import Path

import click
import pytest

from command_lines import commands_of, parse

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?: {4}|\t)(.*)$", re.MULTILINE)
SPAN = re.compile(r"`(virtbackup [^`\n]+)`")
OF_A_FORMAT = {
    "virtbackup repository", "virtbackup key slot", "virtbackup run key", "virtbackup store",
}  # fmt: skip


def shown(page):
    """Shell blocks, lines of indented blocks, and of sentences each ``virtbackup ...``."""
    text = page.read_text()
    rest = FENCED.sub("", text)
    lines = [line for line in INDENTED.findall(rest) if "virtbackup " in line]
    scripts = [block.replace("\\\n", " ") for block in BLOCK.findall(text)]
    named = [span for span in SPAN.findall(rest) if span not in OF_A_FORMAT]
    return [(line, False) for line in [*scripts, *lines]] + [(span, True) for span in named]


SHOWN = [
    pytest.param(line, in_a_sentence, id=f"{page.name}: {line.splitlines()[0]}")
    for page in PAGES
    for line, in_a_sentence in shown(page)
]


@pytest.mark.parametrize(("line", "in_a_sentence"), SHOWN)
def test_each_command_on_a_page_exists(line, in_a_sentence):
    for words in commands_of(line):
        # --version and --help exit; a sentence may name a command without its arguments.
        allowed = (click.exceptions.Exit, *([click.MissingParameter] if in_a_sentence else []))
        with contextlib.suppress(*allowed):
            parse(words)


def test_the_pages_show_commands():
    found = [words for shown in SHOWN for words in commands_of(shown.values[0])]
    assert len(found) > 100
    assert ["backup"] in found
    assert ["config", "check"] in found


@pytest.mark.parametrize(
    "line",
    [
        "virtbackup bakup",
        "virtbackup list --newest",
        "virtbackup config chekc",
        "virtbackup report",
        "virtbackup init --packager zip",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line):
    (words,) = commands_of(line)
    with pytest.raises(click.UsageError):
        parse(words)


def test_commands_are_found_in_a_line_of_shell():
    line = "virtbackup list -a | jq . || mail -s 'virtbackup x' root && virtbackup -c a doctor # x"
    url = "virtbackup config protect s3://a/b --quota 2T"
    assert list(commands_of(url)) == [["config", "protect", "s3://a/b", "--quota", "2T"]]
    script = "x=$(virtbackup show 'a\nb') || {\n  echo virtbackup no\n  virtbackup log\n}"
    assert list(commands_of(line)) == [["list", "-a"], ["-c", "a", "doctor"]]
    assert list(commands_of(script)) == [["show", "a\nb"], ["log"]]
