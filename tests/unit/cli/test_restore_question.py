"""Before disks of today are replaced, a terminal is asked; nobody else is."""

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest

DEFINITION = {
    "name": "20260701-030000_3_web",
    "domain_id": 3,
    "domain_name": "web",
    "domain_xml": "<domain type='kvm' id='3'><name>web</name></domain>",
    "disks": {"vda": "20260701-030000_3_web_vda.qcow2"},
    "version": "0.5.6",
    "date": 1782874800,
    "packager": {"type": "directory", "opts": {}},
}
CONFIG = """
groups:
  main:
    target: {target}
    hosts: ["web", "db"]
"""
NO_LIBVIRT = "uri: test:///nowhere/at/all.xml\n"


def everything_on(terminal):
    """Return what was written to a terminal; one read may give only a part of it."""
    os.set_blocking(terminal, False)
    said = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            said += os.read(terminal, 100_000)
    return said.decode()


@pytest.fixture
def restore(tmp_path):
    """Restores in place with an answer on its terminal; tells the exit code and what was said."""
    target = tmp_path / "target"
    (target / "web").mkdir(parents=True)
    (target / "web" / f"{DEFINITION['name']}.json").write_text(json.dumps(DEFINITION))
    (target / "web" / DEFINITION["disks"]["vda"]).write_bytes(b"x" * 70000)
    config = tmp_path / "config.yml"
    config.write_text(NO_LIBVIRT + CONFIG.format(target=target))
    words = [sys.executable, "-m", "virtbackup_async", "-c", str(config), "restore", "main", "web"]

    def run(*options, answer="", terminal=True):
        ours, theirs = pty.openpty()
        try:
            os.write(ours, answer.encode())
            ended = subprocess.run(
                [*words, "--in-place", "--no-progress", *options],
                stdin=theirs if terminal else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=theirs,
                timeout=60,
                check=False,
                env={**os.environ, "TERM": "dumb"},
            )
            return ended.returncode, everything_on(ours)
        finally:
            os.close(theirs)
            os.close(ours)

    return run


def test_no_is_the_end_of_it(restore):
    code, said = restore(answer="n\n")
    assert code == 130
    assert "web: vda will be as on 2026-07-01" in said
    assert "What is on them now is kept beside" in said
    assert "hypervisor" not in said


def test_yes_goes_on_to_libvirt(restore):
    code, said = restore("--discard-old", answer="y\n")
    assert code == 10
    assert "What is on them now is lost" in said


@pytest.mark.parametrize(
    ("options", "terminal"), [(("--yes",), True), (("--json",), True), ((), False)]
)
def test_who_cannot_answer_is_not_asked(restore, options, terminal):
    code, said = restore(*options, terminal=terminal)
    assert code == 10
    assert "Go on?" not in said


def test_what_cannot_be_found_is_not_asked_of(restore):
    code, said = restore("--date", "2001-01-01", answer="y\n")
    assert code == 12
    assert "Go on?" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--format", "raw"), "no --format"), (("--define",), "takes neither")],
)
def test_what_does_not_go_together(restore, options, said):
    code, told = restore(*options)
    assert code == 2
    assert said in told
