"""engine/clean/clean.py on real directories: what goes, what stays, and what a crash leaves."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
import yaml

from fakes.hypervisor import UUID, FakeHypervisor
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.inventory.chosen_backup import PinRequest, set_pinned
from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.runtime import Runtime, open_lazy_hypervisor
from virtbackup_async.errors import ConnectionFailedError, NotFoundError, StorageError
from virtbackup_async.events import (
    BackupRemoved,
    CleanVerdict,
    PendingFound,
    PendingLeft,
    PendingUndone,
    RemovalFailed,
    RemovalPlanned,
    Warned,
)
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.storage_location import StorageLocation

DAY = 86400
DATE = 1772331300  # 2026-03-01T02:15:00Z, a Sunday
NOTHING = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0}


class Place:
    """A target with a configuration, and one clean after the other."""

    def __init__(self, root):
        self.root, self.target, self.locks = root, root / "t", root / "locks"
        self.target.mkdir()
        self.locks.mkdir()
        self.hypervisor = FakeHypervisor()
        self.groups = {"all": {"hosts": ["r:.*"], **NOTHING}}
        self.events = []

    def put(self, domain="web", day=0, packager="directory", **changed):
        date = DATE + day * DAY
        stamp = datetime.fromtimestamp(date).strftime("%Y%m%d-%H%M%S")  # noqa: DTZ006
        name = f"{stamp}_3_{domain}"
        directory = self.target / domain
        directory.mkdir(exist_ok=True)
        raw = {
            "name": name, "domain_id": 3, "domain_name": domain, "domain_xml": "<domain/>",
            "disks": {"vda": f"{name}_vda.qcow2", "vdb": f"{name}_vdb.raw"}, "version": "1.0.0",
            "date": date, "packager": {"type": packager, "opts": {}}, "uuid": UUID,
        }  # fmt: skip
        raw |= changed
        files = list(raw["disks"].values())
        if packager == "tar":
            files = [f"{name}.tar"]
        if packager == "zstd":
            files = [f"{name}_{file}.zstd" for file in files]
        for file in files:
            (directory / file).write_bytes(b"x" * 5000)
        (directory / f"{name}.json").write_text(json.dumps(raw))
        return name

    def put_pending(self, domain="web", day=9, *, pending_disks=None, **changed):
        """Start a backup and die: a pending file beside half a package."""
        name = self.put(domain, day, **changed)
        path = self.target / domain / f"{name}.json"
        raw = json.loads(path.read_text())
        raw["disks"] = pending_disks or {
            dev: {"src": f"/i/{dev}", "type": "raw", "snapshot": None, "target": file}
            for dev, file in raw["disks"].items()
        }
        path.with_name(f"{name}.json.pending").write_text(json.dumps(raw))
        path.unlink()
        return name

    async def clean(self, *groups, **request):
        self.events = []
        path = self.root / "config.yml"
        default = {"target": str(self.target)}
        path.write_text(yaml.safe_dump({"default": default, "groups": self.groups}))
        self.config = load_config(path)
        await run_clean(self.runtime(self.events.append), CleanRequest(groups, **request))
        return self.events

    def runtime(self, emit):
        return Runtime(self.config, emit, self.hypervisor, lock_directory=self.locks)

    def of(self, kind, *fields):
        found = [event for event in self.events if isinstance(event, kind)]
        return [getattr(event, fields[0]) for event in found] if fields else found

    async def listed(self):
        return [
            found.definition.name
            for found in (await Catalog(StorageLocation.of(self.target)).scan()).complete
        ]

    def files(self):
        return sorted(path.name for path in self.target.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("packager", ["directory", "tar", "zstd"])
async def test_what_no_rule_keeps_goes_with_all_of_its_files(place, packager):
    old, new = (place.put(day=day, packager=packager) for day in (0, 1))
    await place.clean()
    (removed,) = place.of(BackupRemoved)
    assert (removed.group, removed.domain, removed.backup) == ("all", "web", old)
    assert removed.freed_bytes >= 5000
    assert await place.listed() == [new]
    assert not [name for name in place.files() if name.startswith(old)]


async def test_backing_images_go_too(place):
    file = "_vda-backing1.qcow2"
    image = {"source": "/i", "format": "raw", "size_bytes": 1, "data_bytes": 1,
             "stored_bytes": 1, "digest": ""}  # fmt: skip
    name = place.put()
    place.put(day=1)
    definition = place.target / "web" / f"{name}.json"
    raw = json.loads(definition.read_text())
    top = image | {"file": raw["disks"]["vda"], "backing": [image | {"file": name + file}]}
    definition.write_text(json.dumps(raw | {"images": {"vda": top}}))
    (definition.parent / (name + file)).touch()
    await place.clean()
    assert not [found for found in place.files() if found.startswith(name)]


@pytest.mark.parametrize("packager", ["directory", "zstd"])
async def test_state_goes_with_an_unfinished_backup(place, packager):
    name = place.put_pending(packager=packager)
    file = f"{name}_nvram.fd"
    pending = place.target / "web" / f"{name}.json.pending"
    pending.write_text(json.dumps(json.loads(pending.read_text()) | {"state_files": [file]}))
    packed = file if packager == "directory" else f"{name}_{file}.zstd"
    (pending.parent / packed).write_bytes(b"variables")
    await place.clean()
    assert place.files() == []


async def test_a_dry_run_says_the_same_and_does_nothing(place):
    for day in (0, 1, 2):
        place.put(day=day)
    place.put_pending()
    before = place.files()
    await place.clean(dry_run=True)
    planned = [(event.backup, event.keep, event.reasons) for event in place.of(CleanVerdict)]
    assert place.files() == before
    assert place.of(PendingFound)
    assert not place.of(BackupRemoved)
    assert not place.of(PendingUndone)
    (plan,) = place.of(RemovalPlanned)
    assert plan.backups == tuple(name for name, keep, _ in planned if not keep)
    await place.clean()
    assert plan.freed_bytes == sum(place.of(BackupRemoved, "freed_bytes"))
    assert [(e.backup, e.keep, e.reasons) for e in place.of(CleanVerdict)] == planned
    assert len(place.of(BackupRemoved)) == 2
    assert len(place.of(PendingUndone)) == 1


async def test_running_twice_changes_nothing_more(place):
    place.put()
    newest = place.put(day=1)
    await place.clean()
    await place.clean()
    assert not place.of(BackupRemoved)
    assert await place.listed() == [newest]


async def test_a_domain_of_another_group_is_not_touched(place):
    place.groups = {"a": {"hosts": ["web"], **NOTHING}, "b": {"hosts": ["db"], **NOTHING}}
    for domain in ("web", "db", "retired"):
        place.put(domain)
        place.put(domain, day=1)
    await place.clean("a")
    assert place.of(BackupRemoved, "domain") == ["web"]
    assert len(await place.listed()) == 5


async def test_what_another_group_of_the_target_keeps_stays(place):
    place.groups = {"short": {"hosts": ["web"], **NOTHING}, "long": {"hosts": ["r:^w"], "daily": 5}}
    names = [place.put(day=day) for day in range(3)]
    await place.clean("short")
    assert await place.listed() == names


async def test_groups_with_other_targets_have_no_say(place, tmp_path):
    (tmp_path / "other").mkdir()
    place.groups["far"] = {"hosts": ["web"], "target": str(tmp_path / "other"), "daily": 50}
    place.put()
    newest = place.put(day=1)
    await place.clean("all")
    assert await place.listed() == [newest]


async def test_broken_only_and_no_broken(place):
    for day in (0, 1):
        place.put(day=day)
    place.put_pending()
    await place.clean(broken=False)
    assert place.of(BackupRemoved)
    assert not place.of(PendingFound)
    place.put()
    await place.clean(complete=False)
    assert place.of(PendingUndone)
    assert not place.of(CleanVerdict)
    assert len(await place.listed()) == 2


async def test_a_pinned_backup_stays_until_it_is_unpinned(place):
    old, _ = (place.put(day=day, version="0.5.6") for day in (0, 1))
    await place.clean(dry_run=True)
    changed = await set_pinned(place.runtime(print), PinRequest("all", "web", old, pinned=True))
    assert changed.pinned
    raw = json.loads((place.target / "web" / f"{old}.json").read_text())
    assert (raw["pinned"], raw["version"], raw["domain_name"]) == (True, "0.5.6", "web")
    await place.clean()
    assert not place.of(BackupRemoved)
    await set_pinned(place.runtime(print), PinRequest("all", "web", old, pinned=False))
    await place.clean()
    assert place.of(BackupRemoved, "backup") == [old]
    with pytest.raises(NotFoundError):
        await set_pinned(
            place.runtime(print), PinRequest("all", "web", "20200101-000000", pinned=True)
        )


async def test_a_pin_after_the_verdict_is_seen(place):
    """The verdict comes first; what is pinned between it and the removal stays all the same."""
    old, _ = (place.put(day=day) for day in (0, 1))
    definition = place.target / "web" / f"{old}.json"

    def emit(event):
        if isinstance(event, CleanVerdict) and not event.keep:
            definition.write_text(json.dumps(json.loads(definition.read_text()) | {"pinned": True}))

    await place.clean(dry_run=True)
    await run_clean(place.runtime(emit), CleanRequest())
    assert len(await place.listed()) == 2


async def test_a_backup_that_is_being_restored_stays_for_now(place):
    old, newest = (place.put(day=day) for day in (0, 1))
    with (place.target / "web" / f"{old}_vda.qcow2").open("rb") as package:
        fcntl.flock(package, fcntl.LOCK_SH)
        await place.clean()
        (failed,) = place.of(RemovalFailed)
        assert failed.in_use
        assert len(await place.listed()) == 2
    await place.clean()
    assert await place.listed() == [newest]


async def test_what_is_not_understood_stays(place):
    oldest = place.put(day=-3)
    (place.target / "web" / f"{oldest}.json").write_text("{")
    unknown = place.put(day=-2, packager="borg")
    twin = place.put(day=-1, version="0.5.6")
    raw = json.loads((place.target / "web" / f"{twin}.json").read_text())
    (place.target / "web" / f"{twin[:-3]}twin.json").write_text(json.dumps(raw))
    (place.target / "copy").mkdir()
    (place.target / "copy" / f"{twin}.json").write_text(json.dumps(raw))
    for file in raw["disks"].values():
        (place.target / "copy" / file).touch()
    newest = place.put()
    before = place.files()
    await place.clean()
    assert place.files() == before
    reasons = {
        (e.definition.split("/")[-2], e.backup): e.reasons[0] for e in place.of(CleanVerdict)
    }
    assert reasons == {
        ("web", unknown): "not understood: packager 'borg'",
        ("web", twin): "not understood: another backup has the same files",
        ("copy", twin): "not understood: it lies in another domain's directory",
        ("web", newest): "newest",
    }
    assert f"{oldest}.json" in place.of(Warned)[0].message


async def test_strays_are_told_and_dead_temporaries_go(place):
    place.put()
    web = place.target / "web"
    (web / "20200101-000000_3_web_vda.qcow2").touch()
    (web / "notes.txt").touch()
    for name, age_s in (("dead", 4000), ("young", 10)):
        path = web / f".virtbackup-{name.encode().hex()}.tmp"
        path.touch()
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    before = place.files()
    await place.clean()
    assert set(before) - set(place.files()) == {f".virtbackup-{b'dead'.hex()}.tmp"}
    (warning,) = place.of(Warned)
    assert "20200101-000000_3_web_vda.qcow2" in warning.message


async def test_parts_of_a_file_of_the_target_itself_go_after_an_hour(place):
    place.put()
    old, new, foreign = (
        place.target / name
        for name in (".virtbackup-00.tmp", ".virtbackup-01.tmp", ".virtbackup-history")
    )
    for path in (old, new, foreign):
        path.touch()
        os.utime(path, (DATE, DATE) if path != new else None)
    await place.clean(dry_run=True)
    assert old.exists()
    await place.clean()
    assert (old.exists(), new.exists(), foreign.exists()) == (False, True, True)


async def test_a_target_that_cannot_be_read_any_more_is_an_error_of_the_target(place, monkeypatch):
    place.put()

    def broken(self, is_wanted):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(TargetPath, "names", broken)
    with pytest.raises(StorageError, match=r"cannot read .*: Input/output error"):
        await place.clean()


async def test_an_unreadable_target_does_not_hide_the_others(place, tmp_path):
    place.groups = {"gone": {"hosts": ["web"], "target": str(tmp_path / "gone")}, **place.groups}
    place.put()
    newest = place.put(day=1)
    with pytest.raises(StorageError, match="gone"):
        await place.clean()
    assert await place.listed() == [newest]


async def test_an_empty_claim_goes_after_a_minute(place):
    place.put()
    claim = place.target / "web" / "20260302-000000_3_web.json.pending"
    claim.touch()
    await place.clean()
    assert claim.exists()
    assert not place.of(PendingLeft)
    os.utime(claim, (claim.stat().st_mtime - 61,) * 2)
    await place.clean()
    assert not claim.exists()
    assert place.of(PendingUndone)


async def test_an_unreadable_pending_file_stays_and_is_said(place):
    place.put()
    path = place.target / "web" / "20260302-000000_3_web.json.pending"
    path.write_text('{"disks": {')
    await place.clean()
    (left,) = place.of(PendingLeft)
    assert left.pending == str(path)
    assert not left.in_use
    assert path.exists()
    await place.clean(broken=False)
    assert not place.of(PendingLeft)


async def test_libvirt_is_not_needed_where_there_is_no_overlay(place):
    @asynccontextmanager
    async def refuse():
        raise ConnectionFailedError("libvirt does not answer")
        yield

    overlay = {"src": "/i/vda.img", "type": "raw", "snapshot": "/i/vda.img.vbk-1"}
    without = place.put_pending("web")
    name = place.put_pending("db", pending_disks={"vda": overlay}, version="0.5.6")
    async with open_lazy_hypervisor(refuse) as hypervisor:
        place.hypervisor = hypervisor
        await place.clean()
    assert place.of(PendingUndone, "backup") == [without]
    (left,) = place.of(PendingLeft)
    assert left.backup == name
    assert "does not answer" in left.error
    assert place.files() == [f"{name}.json.pending", f"{name}_vda.qcow2", f"{name}_vdb.raw"]


async def test_a_domain_that_is_being_backed_up_is_left_alone(place):
    place.put_pending()
    async with hold_domain(LocalHost(place.locks), "web", UUID, "backup"):
        await place.clean()
        (left,) = place.of(PendingLeft)
        assert left.in_use
        assert f"process {os.getpid()} (backup, since " in left.error
    await place.clean()
    assert place.of(PendingUndone)
    assert place.files() == []


async def test_waiting_for_a_domain(place):
    place.put_pending()
    lock = os.open(place.locks / f"virtbackup-{UUID}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waited = []

    def emit(event):
        place.events.append(event)
        if isinstance(event, Warned) and event.message.startswith("waiting: web: another process"):
            waited.append(event)
            os.close(lock)

    await place.clean(dry_run=True)
    await run_clean(place.runtime(emit), CleanRequest(wait_s=60))
    assert len(waited) == 1
    assert place.of(PendingUndone)


KILLED = """
import os, sys
from pathlib import Path
import anyio
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.runtime import Runtime

left = int(sys.argv[2])

def counted(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        result = real(*args, **kwargs)
        return result
    setattr(os, name, call)

for name in ("unlink", "replace", "rename", "fsync"):
    counted(name)
root = Path(sys.argv[1])
config = load_config(root / "config.yml")
runtime = Runtime(config, lambda event: None, lock_directory=root / "locks")
anyio.run(run_clean, runtime, CleanRequest())
print(left)
"""


async def test_killed_between_any_two_steps_the_next_clean_leaves_nothing(place):
    await place.clean(dry_run=True)
    newest = place.put(day=5)
    for step in range(1, 50):
        old = place.put()
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, place.root, str(step)],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        scan = await Catalog(StorageLocation.of(place.target)).scan()
        # Listed means whole: a scan calls complete only what has all of its files.
        assert not scan.problems, f"step {step}"
        assert not scan.strays, f"step {step}"
        virt_backup_lists = {path.name for path in place.target.glob("*/*.json")}
        assert virt_backup_lists == {f"{found.definition.name}.json" for found in scan.complete}
        await place.clean()
        assert await place.listed() == [newest], f"step {step}"
        assert not [name for name in place.files() if name.startswith(old)], f"step {step}"
        if ended.returncode == 0:
            assert step > 6
            return
        assert ended.returncode == -9, ended.stderr
    pytest.fail("never ran to its end")


async def test_a_removal_that_was_begun_is_ended_by_any_clean(place):
    name = place.put()
    definition = place.target / "web" / f"{name}.json"
    definition.rename(definition.with_name(f"{name}.json.removed"))
    assert await place.listed() == []
    await place.clean(complete=False)
    assert place.of(BackupRemoved, "backup") == [name]
    assert place.files() == []


def verdict_of(day, *, ok):
    return {"verified": {"date": DATE + day * DAY, "ok": ok, "digests": True, "error": None}}


async def test_damaged_backups_cost_no_good_one(place):
    """Seven backups, of which `verify` found the newest two and an old one damaged."""
    place.groups["all"] |= {"daily": 2, "monthly": 1}
    names = [
        place.put(day=day, **({} if day == 3 else verdict_of(day, ok=day not in {0, 5, 6})))
        for day in range(7)
    ]
    await place.clean()
    assert await place.listed() == [names[0], names[1], *names[3:]]
    assert [event.backup for event in place.of(CleanVerdict) if event.damaged] == [
        names[0], names[5], names[6],
    ]  # fmt: skip
    message = "verify found 3 of its 7 backups damaged; no rule counts a damaged one"
    assert place.of(Warned) == [Warned(message, "web")]
    await place.clean(drop_damaged=True)
    assert await place.listed() == [names[1], *names[3:]]
    await place.clean(drop_damaged=True)
    assert await place.listed() == [names[1], *names[3:]], "no good one is newer than the last two"


async def test_where_no_backup_is_good_nothing_goes_and_it_is_said_loudly(place):
    names = [place.put(day=day, **verdict_of(day, ok=False)) for day in range(2)]
    await place.clean(drop_damaged=True)
    assert await place.listed() == names
    message = "verify found 2 of its 2 backups damaged; NONE IS GOOD"
    assert place.of(Warned) == [Warned(message, "web")]


async def test_backup_with_a_damaged_definition_neither_counts_nor_goes(place):
    older, newer = (place.put(day=day) for day in (0, 1))
    path = place.target / "web" / f"{newer}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "1.1.0"}))
    before = place.files()
    await place.clean(drop_damaged=True)
    assert place.files() == before
    assert await place.listed() == [older]
    (warning,) = place.of(Warned)
    assert warning.message.startswith(f"left alone: {path}: damaged")
