"""`virtbackup init` as typed: by questions on a terminal, and without any. libvirt's test driver
has the domains."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from terminal import on_terminal
from virtbackup_async.config import loading
from virtbackup_async.config.loading import examine

NODE = """<node>{}<pool type='dir'><name>p</name><target><path>/p</path></target></pool></node>"""
DOMAIN = """<domain type='test'><name>{}</name><memory>8192</memory><os><type>hvm</type></os>
<devices><disk type='file'><source file='{}'/><target dev='vda'/></disk></devices></domain>"""
ODD = ("yes", "1e3", "!x", "r:.*", "a#b: c", "x$")


@pytest.fixture
def site(tmp_path):
    """A libvirt with odd names, and images in a directory; the command that is typed."""

    class Site:
        images = tmp_path / "images"
        path = tmp_path / "etc" / "config.yml"
        target = tmp_path / "backups"

        def libvirt(self, *names):
            self.images.mkdir(exist_ok=True)
            domains = []
            for number, name in enumerate(names):
                image = self.images / f"{number}.raw"
                image.write_bytes(b"x" * 4096)
                domains.append(DOMAIN.format(name, image))
            node = tmp_path / "node.xml"
            node.write_text(NODE.format("".join(domains)))
            self.uri = f"test://{node}"

        def argv(self, *words):
            words = ["-c", self.path, "init", "--uri", self.uri, *words]
            return [sys.executable, "-m", "virtbackup_async", *map(str, words)]

        def run(self, *words):
            return subprocess.run(
                self.argv(*words), capture_output=True, text=True, timeout=60, check=False
            )

        def group(self):
            config, problems = examine(self.path)
            assert (problems.errors, problems.warnings) == ((), ())
            (group,) = config.groups.values()
            return group

    found = Site()
    found.libvirt(*ODD)
    return found


def kinds(output):
    return [json.loads(line)["event"] for line in output.splitlines()]


def test_a_script_gets_a_file_that_means_every_domain(site):
    ended = site.run("--yes", "--json", "--target", site.target)
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [event["domain"] for event in events if event["event"] == "domain_found"] == sorted(ODD)
    (written,) = (event for event in events if event["event"] == "config_written")
    assert written["config"] == site.path.read_text()
    assert (written["path"], written["target"]) == (str(site.path), str(site.target))
    assert (written["dry_run"], written["found"], written["old"]) == (False, False, None)
    assert "finding" in kinds(ended.stdout), "the doctor was there"
    group = site.group()
    assert all(group.includes(name) for name in (*ODD, "another"))
    assert (group.autostart, group.packager.type) == (True, "repository")
    assert site.target.is_dir()
    assert ended.returncode in {0, 3}, "the doctor says that the test driver is no QEMU"


def test_a_script_may_name_domains_and_a_packager(site):
    site.run("--yes", "--target", site.target, "-D", "!x", "-D", "yes", "--packager", "zstd")
    group = site.group()
    assert [name for name in ODD if group.includes(name)] == ["yes", "!x"]
    assert group.packager.type == "zstd"
    ended = site.run("--yes", "--force", "--target", site.target, "-D", "yess")
    assert ended.returncode == 12
    assert "did you mean 'yes'?" in ended.stderr


def test_a_file_that_is_there_is_replaced_on_demand_alone(site):
    site.path.parent.mkdir()
    site.path.write_text("mine")
    ended = site.run("--yes", "--target", site.target)
    assert ended.returncode == 2
    assert "is there already. Add --force" in ended.stderr
    assert site.path.read_text() == "mine"
    assert not site.target.exists()
    site.run("--yes", "--force", "--target", site.target)
    assert site.group().autostart
    assert site.path.with_name("config.yml.bak").read_text() == "mine"


def test_a_dry_run_prints_the_file_and_writes_nothing(site, tmp_path):
    before = sorted(tmp_path.iterdir())
    ended = site.run("--dry-run", "--target", site.target)
    assert ended.returncode == 0
    assert yaml.safe_load(ended.stdout)["default"]["target"] == str(site.target)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("images", "holds images of"),
        ("relative", "is not a path from the root on"),
        ("node.xml", "is not a directory"),
        ("a$HOME/b", "variables are not expanded"),
    ],
)
def test_a_target_that_cannot_be_one_is_refused(site, tmp_path, target, reason):
    path = target if target == "relative" else tmp_path / target
    ended = site.run("--yes", "--target", path)
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert not site.path.exists()


def test_without_a_safe_place_a_target_must_be_named(site):
    ended = site.run("--yes")
    if ended.returncode != 2:  # this machine has a disk to spare
        assert "virtbackup" in str(site.group().target)
        site.group().target.rmdir()
    else:
        assert "Name a directory with --target." in ended.stderr


def test_a_libvirt_that_does_not_answer(site):
    site.uri = "test:///nowhere/at/all.xml"
    ended = site.run("--yes", "--target", site.target)
    assert ended.returncode == 10
    assert "--uri" in ended.stderr
    assert not site.path.exists()


def test_a_libvirt_without_domains_is_told(site):
    site.libvirt()
    ended = site.run("--yes", "--target", site.target)
    assert "has no domains" in ended.stderr
    assert site.group().includes("the first")


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_nobody_is_asked_without_a_terminal(site, words):
    ended = site.run(*words)
    assert ended.returncode == 2
    assert "--yes" in ended.stderr


TARGET, WARNED = "Where to store the backups", "all the same?"
EVERY, WHICH = "Back up every domain", "Which ones"
PACKAGER, FREEZE, KEEP, WRITE = "How to store them", "Freeze the file", "How many", "Write this to"


@pytest.fixture
def dialog(site):
    """Opens the dialog on a terminal."""
    return lambda *words: on_terminal(site.argv(*words))


def test_return_takes_what_is_proposed(site, dialog):
    with dialog("--target", site.target) as terminal:
        terminal.answer(TARGET, "")
        terminal.answer(WARNED, "")
        for question in (EVERY, PACKAGER, FREEZE, KEEP):
            terminal.answer(question, "")
        terminal.wait_for("autostart: true")
        assert not site.path.exists()
        terminal.answer(WRITE, "")
        terminal.end()
    # The path may be wider than the terminal, which folds it.
    assert f"written:{site.path}" in "".join(terminal.said.split())
    group = site.group()
    assert all(group.includes(name) for name in ODD)
    assert (group.target.directory, group.quiesce) == (site.target, False)


def test_each_answer_counts_and_a_wrong_one_is_asked_again(site, dialog, tmp_path):
    with dialog() as terminal:
        terminal.answer(TARGET, "here")
        terminal.wait_for("is not a path from the root on")
        terminal.answer(TARGET, str(site.images))
        terminal.wait_for("holds images of")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        terminal.answer(TARGET, str(tmp_path / "full"))
        terminal.wait_for("is not empty: file")
        terminal.answer(WARNED, "n")
        terminal.answer(TARGET, str(site.target))
        terminal.answer(WARNED, "y")
        terminal.answer(EVERY, "n")
        terminal.answer(WHICH, "yes, nobody")
        terminal.wait_for("no domain 'nobody'")
        terminal.answer(WHICH, "a#b: c, yes")
        terminal.answer(PACKAGER, "zip")
        terminal.wait_for("one of directory")
        terminal.answer(PACKAGER, "tar")
        terminal.answer(FREEZE, "y")
        terminal.answer(KEEP, "7")
        terminal.wait_for("three whole numbers")
        terminal.answer(KEEP, "3, 2, 1")
        terminal.answer(WRITE, "y")
        terminal.end()
    group = site.group()
    assert [name for name in ODD if group.includes(name)] == ["yes", "a#b: c"]
    assert (group.packager.type, group.quiesce) == ("tar", True)
    assert (group.retention.daily, group.retention.weekly, group.retention.monthly) == (3, 2, 1)


@pytest.mark.parametrize("leave", ["interrupt", "end of file", "no"])
def test_who_leaves_the_dialog_leaves_nothing(site, dialog, tmp_path, leave):
    before = sorted(tmp_path.iterdir())
    with dialog("--target", site.target) as terminal:
        terminal.answer(TARGET, "")
        terminal.answer(WARNED, "")
        for question in (EVERY, PACKAGER, FREEZE, KEEP):
            terminal.answer(question, "")
        terminal.wait_for(WRITE)
        if leave == "interrupt":
            terminal.interrupt()
        else:
            terminal.type("\x04" if leave == "end of file" else "n\n")
        assert terminal.end() == (130 if leave == "interrupt" else 2)
    assert "Traceback" not in terminal.said
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_there_is_asked_about(site, dialog):
    site.path.parent.mkdir()
    site.path.write_text("mine")
    with dialog("--target", site.target) as terminal:
        terminal.answer("is there already. Make a new one?", "")
        assert terminal.end() == 2
    assert site.path.read_text() == "mine"


def test_names_cannot_move_the_cursor(site, dialog):
    site.libvirt("web")
    with dialog("--target", f"{site.target}\x1b[2J") as terminal:
        terminal.wait_for(TARGET)
        terminal.interrupt()
        terminal.end()
    assert "\\x1b[2J" in terminal.said
    assert "\x1b[2J" not in terminal.said


def test_root_writes_for_the_system_and_others_for_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(loading, "SYSTEM_DIRECTORY", tmp_path / "etc")
    own, system = loading.search_paths()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert loading.new_config_path() == system
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert loading.new_config_path() == own
    system.parent.mkdir()
    system.touch()
    assert loading.new_config_path() == system
    own.parent.mkdir(parents=True)
    own.touch()
    assert loading.new_config_path() == own


def test_a_terminal_without_the_letters_is_asked_all_the_same(site):
    site.libvirt("été", "客")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "NO_COLOR": "1"}
    with on_terminal(site.argv("--target", f"{site.target}客"), plain) as terminal:
        for question in (TARGET, WARNED, EVERY, PACKAGER, FREEZE, KEEP, WRITE):
            terminal.answer(question, "")
        terminal.end()
    assert "Traceback" not in terminal.said
    group = site.group()
    assert group.includes("客")
    assert os.fsencode(group.target.directory) == f"{site.target}客".encode()
