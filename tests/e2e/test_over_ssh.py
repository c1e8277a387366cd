"""A target on another machine, reached by ssh: a host that may only add, and its keeper."""

import os
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
        commands = {
            "writer": server_command(backups, "--append-only", "--quota", "1GiB"),
            "keeper": server_command(backups),
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


def test_a_writer_backs_up_and_destroys_nothing(run, nas, domain, tmp_path):
    for _ in range(2):
        done = run("writer", "backup")
        assert done.returncode == 0, done.stderr
    before = content_of(nas)
    assert {name for name in before if name.endswith(".json")}
    listed = run("writer", "list")
    assert listed.returncode == 0, listed.stderr
    assert "nightly" in listed.stdout
    assert run("writer", "verify").returncode == 0
    restored = run("writer", "restore", "all", domain.name, tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    (image,) = (tmp_path / "restored").glob("*.raw")
    assert image.read_bytes() == domain.images()["vda"].read_bytes()

    refused = run("writer", "clean")
    assert refused.returncode != 0
    assert "this key may only add files" in refused.stderr
    assert refused.stderr.count("may only add") == 1
    after = content_of(nas)
    assert {name: after.get(name) for name in before} == before
