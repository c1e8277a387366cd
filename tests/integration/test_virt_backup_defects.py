"""What virt-backup 0.5.6 gets wrong, shown on the real program, and what this one does instead.

Others have their tests elsewhere: the same domain twice at once (test_backup_conditions.py), a
failed block job that is waited for (test_failures.py), holes copied as data (contract of the
packagers), `passphrase` (unit/config).
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from anyio import Path as AsyncPath
from anyio import fail_after, sleep, to_thread

from lab.disks import DiskSpec
from lab.domains import define
from recording import Recorder, assert_at_home, back_up, configure
from test_clean import SLOW, assert_kept, clean
from virt_backup_program import run_virt_backup
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.events import BackupRemoved, PendingLeft, PendingUndone

MIB = 1 << 20
WEEKLY = {"hourly": 0, "daily": 0, "weekly": 2, "monthly": 0, "yearly": 0}


@pytest.fixture
def make_busy(daemon):
    """Makes running domains whose copy takes seconds with a slow packager."""
    made = []

    def make(name):
        domain = define(daemon, name, [DiskSpec("vda", "raw", fs=None)], agent=False)
        made.append(domain)
        with domain.images()["vda"].open("r+b") as image:
            image.write(os.urandom(32 * MIB))
        domain.start()
        return domain

    yield make
    for domain in made:
        domain.undefine()


async def kill_virt_backup(program, config, domain, meanwhile=None):
    """Kill the real program when it has begun to write the domain's archive."""
    command = [program, "-c", config.path, "backup", "all"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    target = config.groups["all"].target.directory / domain.name
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        with fail_after(60):
            while not await _is_being_written(AsyncPath(target)):
                assert process.poll() is None, process.stderr.read()
                await sleep(0.02)
        if meanwhile is not None:
            await meanwhile(process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


async def _is_being_written(target):
    return any([(await path.stat()).st_size > 0 async for path in target.glob("*.tar.xz")])


async def test_a_crash_leaves_a_backup_that_is_listed_as_good(
    daemon,
    virt_backup,
    make_busy,
    tmp_path,
):
    domain = make_busy("defect-crash")
    images = domain.images()
    config = configure(tmp_path, daemon.uri, [domain.name], **SLOW)
    await kill_virt_backup(virt_backup, config, domain)
    listed = await to_thread.run_sync(run_virt_backup, virt_backup, config.path, "list")
    assert "1 hosts, 1 backups" in listed  # theirs

    (ours,) = await list_backups(config, ["all"], [], known_domains=None)
    assert ours.backups_by_domain == {}

    domain.qemu_io("vda", "write -P 7 50M 1M")
    events = await clean(config, complete=False)
    assert len(events.of(PendingUndone)) == 1
    assert not events.of(PendingLeft)
    assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == []
    assert domain.state() == "running"
    assert_at_home(domain, images)
    assert_kept(images)
    assert (await back_up(config, Recorder(tmp_path / "f"))).done


async def test_a_virt_backup_that_runs_is_left_alone(daemon, virt_backup, make_busy, tmp_path):
    domain = make_busy("defect-running")
    config = configure(tmp_path, daemon.uri, [domain.name], **SLOW)

    async def clean_and_back_up(process):
        events = await clean(config, complete=False)
        (left,) = events.of(PendingLeft)
        assert left.in_use
        assert f"process {process.pid}" in left.error
        failed = (await back_up(config, Recorder(tmp_path / "f"))).failed
        assert failed.exit_code == 11
        assert process.poll() is None

    await kill_virt_backup(virt_backup, config, domain, clean_and_back_up)
    assert len((await clean(config, complete=False)).of(PendingUndone)) == 1


async def test_every_second_broken_backup_is_passed_over(
    daemon,
    virt_backup,
    make_busy,
    tmp_path,
):
    domain = make_busy("defect-second")
    config = configure(tmp_path, daemon.uri, [domain.name], packager="directory")
    directory = tmp_path / "target" / domain.name
    xml = daemon.virsh("dumpxml", domain.name)

    def put_broken():
        directory.mkdir(exist_ok=True)
        for second in range(4):
            put_pending(directory, domain.name, xml, f"20260301-02150{second}_1_{domain.name}")

    put_broken()
    words = ("clean", "-b", "all")
    said = await to_thread.run_sync(run_virt_backup, virt_backup, config.path, *words)
    assert "Broken backups removed for group all: 2" in said  # theirs, of four

    put_broken()
    events = await clean(config, complete=False)
    assert len(events.of(PendingUndone)) == 4
    assert list(directory.iterdir()) == []


def put_pending(directory: Path, domain, xml, name):
    # The earliest state: nothing of a disk was begun. Theirs is removed by date, in local time.
    raw = {
        "name": name, "domain_id": 1, "domain_name": domain, "domain_xml": xml, "disks": {},
        "version": "0.5.6", "date": 1772331300 + int(name[14]), "packager":
        {"type": "directory", "opts": {}},
    }  # fmt: skip
    (directory / f"{name}.json.pending").write_text(json.dumps(raw))


async def test_a_week_over_the_end_of_a_month_counts_twice(
    daemon,
    virt_backup,
    tmp_path,
):
    config = configure(tmp_path, daemon.uri, ["r:.*"], packager="directory", **WEEKLY)
    directory = tmp_path / "target" / "web"
    directory.mkdir()
    # Mondays 15, 22 and 29 June 2026, and Wednesday 1 July, of the week that began on 29 June.
    for day, date in (("0615", 1781521200), ("0622", 1782126000), ("0629", 1782730800),
                      ("0701", 1782903600)):  # fmt: skip
        put_complete(directory, f"2026{day}-110000_1_web", date)
    before = {path: path.read_bytes() for path in directory.iterdir()}
    words = ("clean", "-B", "all")
    await to_thread.run_sync(run_virt_backup, virt_backup, config.path, *words)
    theirs = sorted(path.name[:8] for path in directory.glob("*.json"))
    assert theirs == ["20260629", "20260701"]  # one week, and no other

    for path, content in before.items():
        path.write_bytes(content)
    events = await clean(config, broken=False)
    ours = sorted(path.name[:8] for path in directory.glob("*.json"))
    assert ours == ["20260622", "20260629", "20260701"]  # two weeks, and the newest
    assert len(events.of(BackupRemoved)) == 1


def put_complete(directory: Path, name, date):
    raw = {
        "name": name, "domain_id": 1, "domain_name": "web", "domain_xml": "<domain/>",
        "disks": {"vda": f"{name}_vda.raw"}, "version": "0.5.6", "date": date,
        "packager": {"type": "directory", "opts": {}},
    }  # fmt: skip
    (directory / f"{name}.json").write_text(json.dumps(raw))
    (directory / f"{name}_vda.raw").write_bytes(b"x")
