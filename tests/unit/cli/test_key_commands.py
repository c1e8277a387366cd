"""``virtbackup key``: keys are listed, added, removed, rotated and printed, and never shown."""

import json
import re
import subprocess
import sys

import pytest

from virtbackup_async.cli.render.paper import lines_of
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.repository import (
    find_repository,
    key_of_file,
    key_of_paper,
    key_of_passphrase,
    make_repository,
    open_key_changes,
)

PASSPHRASE = "correct horse battery staple"  # noqa: S105 -- of the test alone


class Site:
    """An encrypted target, and commands on it."""

    def __init__(self, directory):
        self.target = directory / "target"
        self.target.mkdir()
        self.key_file = directory / "key"
        self.location = StorageLocation(LOCAL, str(self.target), key_file=self.key_file)
        make_repository(self.location)
        self.by_key_file = ("--key-file", str(self.key_file))

    def run(self, *words, typed="", code=0):
        """Run ``key`` with some words; what it printed, on both streams."""
        argv = [sys.executable, "-m", "virtbackup_async", "key", *words, "--target", self.target]
        ended = subprocess.run(argv, input=typed, capture_output=True, text=True, check=False)
        said = ended.stdout + ended.stderr
        assert ended.returncode == code, said
        for secret in (PASSPHRASE, self.key_file.read_text().split(":")[-1].strip()):
            assert secret not in said
            assert not any(secret in str(word) for word in argv)
        return said

    def listed(self):
        """The slots, by name: what they are."""
        lines = self.run("list", "--json").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return {e["subject"]: e["message"] for e in events if e.get("code") == "key_slot"}

    def files(self):
        return {path: path.read_bytes() for path in self.target.rglob("*") if path.is_file()}


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.mark.timeout(120)  # a process for each command, and Argon2id in earnest
def test_keys_are_added_printed_rotated_and_removed(site, tmp_path):
    assert "Run 'virtbackup key paper'" in site.run("list")
    site.run("add", *site.by_key_file, "--new-passphrase", "--label", "admin",
             typed=f"{PASSPHRASE}\n")  # fmt: skip
    sheet = site.run("paper", *site.by_key_file)
    letters = re.findall(r"^    ([A-Z2-7]{4}(?:-[A-Z2-7]{4})+)$", sheet, re.MULTILINE)
    paper = "-".join(letters)
    assert len(paper.split("-")) == 14
    assert "key paper" not in site.run("list")
    other = tmp_path / "other"
    site.run("add", "--recovery", "--new-key-file", str(other), typed=f"{paper.lower()}\n")
    before = site.listed()
    assert sorted(message.split(",")[0] for message in before.values()) == [
        "key-file", "key-file", "passphrase", "recovery",
    ]  # fmt: skip
    refused = site.run("rotate", *site.by_key_file, code=2)
    assert "is not here" in refused
    assert site.listed() == before
    site.run("rotate", "--passphrase", "--and-key-file", str(other), "--and-key-file",
             str(site.key_file), typed=f"{PASSPHRASE}\n")  # fmt: skip
    after = site.listed()
    assert sorted(after.values()) == sorted(before.values())
    assert not after.keys() & before.keys()
    for key in (key_of_file(site.key_file), key_of_file(other), key_of_paper(paper),
                key_of_passphrase(PASSPHRASE)):  # fmt: skip
        assert open_key_changes(site.location, key).generations == 2
    (name,) = [name for name, message in after.items() if message.startswith("passphrase")]
    assert "key rotate" in site.run("remove", name, *site.by_key_file)
    refused = site.run("rotate", "--passphrase", typed=f"{PASSPHRASE}\n", code=2)
    assert "the passphrase opens no key slot" in refused
    assert find_repository(site.location) is not None


@pytest.mark.parametrize(
    ("words", "typed", "code"),
    [
        (("add", "--passphrase", "--new-key-file", "{new}"), "wrong\n", 2),
        (("add", "--recovery", "--new-key-file", "{new}"), "AAAA-BBBB\n", 2),
        (("add", "--passphrase", "--new-key-file", "{new}"), "", 2),
        (("add", "--key-file", "{new}", "--new-passphrase"), f"{PASSPHRASE}\n", 2),
        (("add", "--key-file", "{key}", "--new-passphrase"), "short\n", 2),
        (("add", "--key-file", "{key}"), "", 2),
        (("add", "--new-key-file", "{new}"), "", 2),
        (("add", "--key-file", "{key}", "--passphrase", "--new-key-file", "{new}"), "", 2),
        (("remove", "none", "--key-file", "{key}"), "", 12),
        (("paper", "--key-file", "{key}", "--json"), "", 2),
        (("rotate", "--key-file", "{new}"), "", 2),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(site, tmp_path, words, typed, code):
    new, before = tmp_path / "new", site.files()
    words = [word.format(new=new, key=site.key_file) for word in words]
    site.run(*words, typed=typed, code=code)
    assert site.files() == before
    assert not new.exists()


def test_the_only_key_is_not_removed(site):
    (name,) = site.listed()
    assert "its own slot" in site.run("remove", name, *site.by_key_file, code=2)
    assert site.listed()


def test_a_sheet_has_the_key_twice_and_escapes_the_target():
    lines = list(lines_of("/srv/\x1b[31m", "virtbackup-recovery-1:" + "-".join(["ABCD"] * 14)))
    assert "\x1b" not in "\n".join(lines)
    assert lines.count("    ABCD-ABCD-ABCD-ABCD") == 3
    drawn = [line for line in lines if set(line) <= set("█▀▄ ") and len(line) > 30]
    assert len(drawn) > 15


def test_without_the_drawing_package_the_text_is_enough(monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    lines = list(lines_of("/srv", "virtbackup-recovery-1:" + "-".join(["ABCD"] * 14)))
    assert lines.count("    ABCD-ABCD-ABCD-ABCD") == 3
    assert not any("█" in line for line in lines)


def test_a_target_without_encryption_has_no_keys(tmp_path):
    make_repository(StorageLocation.of(tmp_path))
    argv = [sys.executable, "-m", "virtbackup_async", "key", "list", "--target", tmp_path]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 12
    assert "not encrypted" in ended.stderr
