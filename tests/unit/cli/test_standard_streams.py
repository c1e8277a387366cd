"""A process whose standard streams are closed or full does its work, and says how it ended."""

import itertools
import os
import subprocess
import sys

import pytest
import yaml

from fakes.stored_backup import StoredBackup
from virtbackup_async.model.backup import Packager

STREAMS = {0: "<&-", 1: ">&-", 2: "2>&-"}
SUBSETS = [
    closed for size in range(1, 4) for closed in itertools.combinations(STREAMS, size)
]  # fmt: skip
# What each command ends with. Nobody answers as libvirt here.
COMMANDS = {
    ("backup", "-q"): 10,
    ("backup", "--json"): 10,
    ("clean",): 0,
    ("completion", "bash"): 0,
    ("config", "check"): 0,
    ("config", "migrate"): 0,
    ("doctor",): 3,
    ("export", "main", "web", "vda", "{place}/exported"): 0,
    ("list",): 0,
    ("pin", "main", "web"): 0,
    ("repair",): 12,
    ("restore", "main", "web", "{place}/restored"): 0,
    ("stats",): 0,
    ("verify",): 0,
    ("--help",): 0,
    (): 2,
    ("nonsense",): 2,
}


@pytest.fixture
async def site(tmp_path):
    """A target with a backup, and a configuration of it; returns the directory."""
    target = tmp_path / "target"
    await StoredBackup(target, Packager("directory")).make(tmp_path / "image")
    group = {"target": str(target), "autostart": True, "hosts": ["web"], "packager": "directory"}
    uri = f"qemu+unix:///system?socket={tmp_path}/nobody"
    config = yaml.safe_dump({"uri": uri, "groups": {"main": group}})
    (tmp_path / "config.yml").write_text(config)
    return tmp_path


def start(place, arguments, redirections):
    argv = [sys.executable, "-m", "virtbackup_async", "-c", str(place / "config.yml")]
    argv += [word.format(place=place) for word in arguments]
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *argv]
    return subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.timeout(300)  # a process for each command
@pytest.mark.parametrize("closed", SUBSETS, ids=lambda closed: "".join(map(str, closed)))
async def test_every_command_does_without_streams(site, closed):
    place = site
    redirections = " ".join(STREAMS[fd] for fd in closed)
    for arguments, expected in COMMANDS.items():
        process = start(place, arguments, redirections)
        out, err = process.communicate(timeout=30)
        assert process.returncode == expected, (arguments, out, err)
        assert "Traceback" not in err
    assert (place / "restored" / "image").read_bytes() == (place / "image").read_bytes()
    assert (place / "exported").exists()


async def test_what_python_starts_without_is_there(site):
    """The descriptors are real ones: a file that is opened later is none of the three."""
    program = (
        "import os, sys; from virtbackup_async.cli.standard_streams import open_closed\n"
        "open_closed(); fd = os.open('/', os.O_RDONLY); print('said'); sys.stderr.write('said')\n"
        "sys.stdin.read(); os.write(int(sys.argv[1]), str(fd).encode())"
    )
    read, write = os.pipe()
    argv = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program, str(write)]
    subprocess.run(argv, pass_fds=(write,), check=True)
    os.close(write)
    assert int(os.read(read, 100)) > 2
    os.close(read)


async def test_an_image_goes_to_no_closed_output(site):
    place = site
    process = start(place, ("export", "main", "web", "vda", "-"), ">&-")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "standard output is closed: give OUTPUT a name" in err


@pytest.mark.parametrize(
    ("redirections", "expected"),
    [(">/dev/full", 1), ("2>/dev/full", 0), (">/dev/full 2>/dev/full", 1)],
)
async def test_full_streams_change_the_exit_code_to_no_unknown_one(site, redirections, expected):
    place = site
    for command in (("list",), ("list", "--json"), ("--help",)):
        process = start(place, command, redirections)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in err) == (expected, False), command
