"""From nothing to a restored guest: `virtbackup init` on a terminal, then what it wrote is used."""

import pytest
from command import PROGRAM, events, virtbackup

from terminal import on_terminal
from virtbackup_async.config.loading import examine

ODD = ("yes", "1e3", "!x", "r:.*", "a#b: c")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "etc" / "config.yml"


def test_answers_lead_to_backups_that_can_be_restored(make_domain, daemon, path, tmp_path):
    domain = make_domain(name="first-of-all")
    make_domain(name="no-agent", boot=False, agent=False)
    target = tmp_path / "backups"
    with on_terminal([PROGRAM, "-c", path, "init", "--uri", daemon.uri]) as terminal:
        terminal.wait_for("first-of-all")
        terminal.wait_for("answers")
        terminal.answer("Where to store the backups", str(target))
        # The test's directory is where the images are, or memory.
        terminal.answer("all the same?", "")
        for question in ("Back up every domain", "How to store them", "Freeze the file"):
            terminal.answer(question, "")
        terminal.answer("How many", "3 2 1")
        terminal.answer("Write this to", "")
        assert terminal.end() == 0, terminal.said
    assert "doctor: 0 problems" in terminal.said

    strict = virtbackup("-c", path, "config", "check", "--strict")
    assert strict.returncode == 0, strict.stdout
    backup = virtbackup("-c", path, "backup", "--json")
    assert backup.returncode == 0, backup.stdout
    ended = [event for event in events(backup.stdout) if event["event"] == "backup_done"]
    done = {event["domain"]: event for event in ended}
    assert set(done) == {"first-of-all", "no-agent"}
    assert done["first-of-all"]["quiesced"] is True
    listed = virtbackup("-c", path, "list")
    assert "first-of-all" in listed.stdout
    restored = virtbackup("-c", path, "restore", "guests", "first-of-all", tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    assert list((tmp_path / "restored").glob("*vda*"))
    assert domain.state() == "running"


def test_odd_names_of_domains_are_backed_up_as_what_they_are(make_domain, daemon, path, tmp_path):
    for name in ODD:
        make_domain(name=name, boot=False, agent=False)
    made = virtbackup(
        "-c", path, "init", "--yes", "--uri", daemon.uri, "--target", tmp_path / "backups",
        *(word for name in ODD for word in ("-D", name)),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    _, problems = examine(path)
    assert (problems.errors, problems.warnings) == ((), ())
    backup = virtbackup("-c", path, "backup", "--json")
    done = [event["domain"] for event in events(backup.stdout) if event["event"] == "backup_done"]
    assert sorted(done) == sorted(ODD)
    assert backup.returncode == 0
