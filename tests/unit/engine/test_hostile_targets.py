"""Targets made up at random by somebody who means harm: no file of the host changes, nothing runs.

Names, paths and versions are drawn from those that matter to some check, so that most files pass
most of them. The domain is on a snapshot of the admin's own; so there is nothing to be undone, and
whatever an undo would do is a mistake.
"""

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from anyio import run
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fakes.hostile_target import (
    DATE,
    NAME,
    UUID,
    HostileTarget,
    make_image,
    make_overlay,
    snapshot_of,
)
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.filters import VerifyRequest
from virtbackup_async.engine.verify.verify import run_verify
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.processes import Ended
from virtbackup_async.qemu import qemu_img

NOW = datetime.fromtimestamp(DATE, UTC)
CHECKPOINT = "virtbackup-0a0b0c0d-11111111-2222-3333-4444-555555555555"
OTHER_UUID = UUID[:-1] + "7"
CHANGES = {"commit", "resume_commit", "pivot", "set_persistent_source", "thaw", "delete_checkpoint"}


class World(HostileTarget):
    """Files of the host that are named in every way that some check asks for."""

    def __init__(self, root):
        super().__init__(root)
        self.own = make_overlay(self.images / "evil.snap1", self.image)
        make_overlay(self.images / "evil.raw.vbk-0a0b0c0d", self.image)
        make_overlay(self.images / "evil.1569890041", self.image)
        for name in ("evil.raw.vbk-0a0b0c0d.scratch", "other.raw", "other.qcow2"):
            make_image(self.images / name, 5)
        for name in ("shadow", "vbk-0a0b0c0d.sock", f"{NAME}_vda.raw", f"{NAME}.tar"):
            make_image(self.etc / name, 6)
        self.hostile = root / "hostile"
        self.hostile.mkdir()
        make_overlay(self.hostile / "img.vbk-0a0b0c0d", self.etc / "shadow")
        make_overlay(self.hostile / "img.1569890041", self.images / "other.raw")
        self.domain.persistent = {"vda": self.own}
        self.paths = [
            *(path for at in (self.images, self.etc) for path in sorted(at.iterdir())),
            self.directory / "img", self.directory / "img.vbk-0a0b0c0d",
            self.directory / "img.1569890041", Path("/"), Path("relative"), Path("../etc/shadow"),
            self.target / "evil" / ".." / ".." / "etc" / "shadow", self.images / "evil",
            self.images / "nothing.raw", self.images / "nothing.raw.vbk-0a0b0c0d",
        ]  # fmt: skip
        self.texts = [str(path) for path in self.paths]
        self.programs = []
        self.before = snapshot_of(self.images, self.etc)

    def make_anew(self):
        shutil.rmtree(self.target)
        shutil.copytree(self.hostile, self.directory)
        shutil.rmtree(self.root / "restored", ignore_errors=True)
        self.domain.calls.clear()

    async def use(self):
        """Everything that reads a target and does something because of it."""
        await self.clean()
        config = load_config(self.root / "config.yml")
        request = CleanRequest(broken=False)
        runtime = Runtime(
            config, lambda _event: None, self.hypervisor, lock_directory=self.root / "locks"
        )
        await run_clean(runtime, request)
        await list_backups(config, ["all"], [], known_domains=None)
        with suppress(VirtBackupError):
            await run_verify(runtime, VerifyRequest())
        for found in (await Catalog(StorageLocation.of(self.target)).scan()).complete:
            request = RestoreRequest(found.definition, found.path.parent, self.root / "restored")
            with suppress(VirtBackupError):
                await restore_backup(runtime, request)

    def assert_unharmed(self):
        assert snapshot_of(self.images, self.etc) == self.before
        assert self.domain.persistent == {"vda": self.own}
        assert self.programs == []
        assert [left.error for left in self.left if "unexpected" in left.error] == []
        assert not CHANGES & {*self.domain.calls}


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)

    async def note(argv, *_rest, **_options):
        world.programs.append(argv)
        return Ended(1, b"", b"")

    monkeypatch.setattr(qemu_img, "run_program", note)
    return world


def mostly(good, other):
    """One of the good ones nine times out of ten, so that most files pass most checks."""
    likely = st.sampled_from([True] * 9 + [False])
    return likely.flatmap(lambda is_good: st.sampled_from(good) if is_good else other)


def names():
    hostile = st.sampled_from([
        f"{NAME}_../../etc/shadow", "../../etc/shadow", "shadow", f"{NAME}_", "", ".",
        f"{NAME}_a/b", f"{NAME}_a\0b",
    ])  # fmt: skip
    return mostly([f"{NAME}_vda.raw", f"{NAME}_vda.raw", f"{NAME}_nvram.fd"], hostile)


def overlaid(world):
    """An image and what is said to be its overlay: in one directory, and named alike, mostly."""
    inside, images = world.directory, world.images
    pairs = [
        (images / "evil.raw", world.own),
        (images / "evil.raw", images / "evil.raw.vbk-0a0b0c0d"),
        (images / "evil.raw", images / "evil.1569890041"),
        (images / "other.x", images / "other.raw"),
        (images / "other.x", images / "other.qcow2"),
        (world.etc / "shadow.x", world.etc / "shadow"),
        (inside / "img", inside / "img.vbk-0a0b0c0d"),
        (inside / "img", inside / "img.1569890041"),
        (images / "nothing.raw", images / "nothing.raw.vbk-0a0b0c0d"),
    ]
    paths = st.sampled_from(world.paths)
    return mostly(pairs, st.tuples(paths, paths))


def disks(world):
    def make(of, rest):
        return {**rest, "src": str(of[0]), "snapshot": str(of[1]) if rest["overlaid"] else None}

    scratch = [None, None, str(world.images / "evil.raw.vbk-0a0b0c0d.scratch")]
    rest = st.fixed_dictionaries({
        "overlaid": st.booleans(), "type": st.sampled_from(["raw", "qcow2"]), "target": names(),
        "committed": st.booleans(), "tracked": st.booleans(),
        "scratch": mostly(scratch, st.sampled_from(world.texts)),
    })  # fmt: skip
    disk = st.builds(make, overlaid(world), rest)
    return st.dictionaries(st.sampled_from(["vda", "zzz"]), disk, min_size=1, max_size=2)


def packagers():
    kinds = st.sampled_from(["directory", "tar", "zstd", "repository", "borg", "../x"])
    options = st.sampled_from(["gz", "xz", "../../etc/shadow", "", "tar"])
    compression = st.dictionaries(st.just("compression"), options, max_size=1)
    return st.builds(lambda kind, opts: {"type": kind, "opts": opts}, kinds, compression)


def files(world):
    """A pending file, a definition or a removal note."""
    common = {
        "name": mostly([NAME], st.sampled_from(["../../etc/shadow", "shadow"])),
        "domain_id": st.just(3),
        "domain_name": mostly(["evil"], st.sampled_from(["other", "../etc"])),
        "domain_xml": st.sampled_from(["<domain/>", f"<domain><uuid>{UUID}</uuid></domain>"]),
        "version": st.sampled_from(["1.0.0", "1.0.0", "0.5.6", "0.4.0", "0.1"]),
        "date": st.just(DATE),
        "packager": packagers(),
        "uuid": mostly([UUID], st.sampled_from([OTHER_UUID, None, "../../x"])),
    }
    socket = [None, str(world.etc / "vbk-0a0b0c0d.sock")]
    pending = {
        **common, "disks": disks(world), "quiesce": st.booleans(),
        "socket": mostly(socket, st.sampled_from(world.texts)),
        "checkpoint": st.sampled_from([CHECKPOINT, None]),
        "state_files": st.lists(names(), max_size=1),
    }  # fmt: skip
    definition = {**common, "disks": st.dictionaries(st.just("vda"), names(), max_size=1)}
    return st.one_of(
        st.tuples(st.just(".json.pending"), st.fixed_dictionaries(pending)),
        st.tuples(st.sampled_from([".json", ".json.removed"]), st.fixed_dictionaries(definition)),
    )


def links():
    """Links that take the place of a package's file, or of a domain's directory."""
    where = st.sampled_from([f"evil/{NAME}_vda.raw", f"evil/{NAME}.tar", "other", "linked"])
    return st.dictionaries(where, st.sampled_from(["etc", "images", "etc/shadow"]), max_size=2)


def packages():
    """Files that a backup may have, or what is taken for them."""
    files = [f"{NAME}_vda.raw", f"{NAME}.tar", f"{NAME}_{NAME}_vda.raw.zstd", f"{NAME}_vda.raw.map"]
    content = st.sampled_from([b"", b"raw" * 1000, b"QFI\xfb" + b"\0" * 600])
    return st.dictionaries(st.sampled_from(files), content)


@settings(
    max_examples=120,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_file_of_the_host_changes_and_nothing_is_run(world, data):
    world.make_anew()
    for suffix, content in data.draw(st.lists(files(world), min_size=1, max_size=3)):
        (world.directory / f"{NAME}{suffix}").write_text(json.dumps(content))
    for name, content in data.draw(packages()).items():
        (world.directory / name).write_bytes(content)
    for name, to in data.draw(links()).items():
        path = world.target / name
        path.unlink(missing_ok=True)
        path.symlink_to(world.root / to)
    run(world.use)
    world.assert_unharmed()
