"""A target on another machine, reached by ssh: a host that may only add, and its keeper."""

import os
import shlex
import tempfile
from pathlib import Path

import pytest
from command import virtbackup, write_config

from lab.disks import DiskSpec
from lab.domains import define
from ssh_server import server_command, ssh_server


@pytest.fixture
def domain(daemon):
    domain = define(daemon, "nightly", [DiskSpec("vda", "raw", fs=None)], agent=False)
    yield domain
    domain.undefine()


@pytest.fixture
def nas(monkeypatch):
    """A machine whose keys say what a client may do; its directory of backups."""
    with tempfile.TemporaryDirectory(prefix="virtbackup-nas-") as place:
        backups = Path(place, "backups")
        for directory in (backups, Path(place, "ssh")):
            directory.mkdir()
        writer = server_command(backups, "--append-only", "--quota", "1GiB")
        commands = {
            "writer": writer,
            "keeper": server_command(backups),
            "cut": ["sh", "-c", f"dd bs=64k count=30 status=none | {shlex.join(writer)}"],
        }
        with ssh_server(Path(place, "ssh"), commands) as server:
            monkeypatch.setenv("PATH", f"{server.programs}:{os.environ['PATH']}")
            yield backups


@pytest.fixture
def run(daemon, domain, nas, tmp_path):
    """Runs a command with the configuration of a role."""

    def run(role, *words, **group):
        directory = tmp_path / role
        directory.mkdir(exist_ok=True)
        config = write_config(
            directory, daemon.uri, [domain.name], packager="repository", daily=1, **group
        )
        text = config.read_text().replace(str(directory / "target"), f"ssh://{role}/srv/backups")
        config.write_text(text)
        return virtbackup("-c", config, *words)

    return run


def content_of(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "reserve-" not in path.name
    }


def definitions(nas):
    return [name for name in content_of(nas) if name.endswith(".json")]


def test_a_writer_backs_up_and_destroys_nothing(run, nas, domain, tmp_path):
    for weekly in (5, 5, 4):
        done = run("writer", "backup", weekly=weekly)
        assert done.returncode == 0, done.stderr
    assert "may only add" not in done.stderr
    before = content_of(nas)
    assert len(definitions(nas)) == 3
    listed = run("writer", "list")
    assert listed.returncode == 0, listed.stderr
    assert "nightly" in listed.stdout
    assert run("writer", "verify").returncode == 0
    restored = run("writer", "restore", "all", domain.name, tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    (image,) = (tmp_path / "restored").glob("*.raw")
    assert image.read_bytes() == domain.images()["vda"].read_bytes()

    proven = run("writer", "doctor", "-v")
    assert "append-only: it refused to overwrite and to remove a file" in proven.stdout
    refused = run("writer", "clean")
    assert refused.returncode != 0
    assert "this key may only add files" in refused.stderr
    after = content_of(nas)
    assert {name: after.get(name) for name in before} == before
    left = run("writer", "clean", append_only=True)
    assert left.returncode == 0, left.stderr
    assert "its keeper cleans it" in left.stderr

    # The second of the day would go, but for the window.
    kept = run("keeper", "clean", "--dry-run", protect="30d")
    assert "protected: stored" in kept.stdout
    assert run("keeper", "clean", protect="30d").returncode == 0
    assert len(definitions(nas)) == 3
    cleaned = run("keeper", "clean")
    assert cleaned.returncode == 0, cleaned.stderr
    assert len(definitions(nas)) == 2
    assert run("writer", "verify").returncode == 0


def test_a_writer_with_the_keepers_key_is_found_out(run):
    found = run("keeper", "doctor", append_only=True)
    assert found.returncode == 3
    assert "this host can overwrite and remove files in it" in found.stdout + found.stderr


def test_an_encrypted_backup_is_added_by_a_writer(run, nas, domain, tmp_path):
    options = {"encryption": {"key_file": str(tmp_path / "key")}}
    done = run("writer", "backup", **options)
    assert done.returncode == 0, done.stderr
    assert run("writer", "verify", **options).returncode == 0
    assert not [name for name in content_of(nas) if domain.name in name]
    proven = run("writer", "doctor", "-v", **options)
    assert "append-only: it refused" in proven.stdout


def test_a_connection_lost_within_a_backup_harms_no_guest(run, nas, domain):
    """Each connection ends after so many requests."""
    first = run("writer", "backup")
    assert first.returncode == 0, first.stderr
    before = content_of(nas)
    done = run("cut", "backup")
    assert done.returncode == 3
    assert "ssh://cut/srv/backups" in done.stderr
    assert {name: content_of(nas).get(name) for name in before} == before
    assert not list(domain.images()["vda"].parent.glob("*.vbk-*"))
    assert run("writer", "backup").returncode == 0
