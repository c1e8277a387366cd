"""A whole run of `backup` on a hypervisor that is a fake: what it ends with."""

from uuid import uuid4

import pytest
import yaml
from msgspec.structs import replace

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import BackupsFailedError, ConfigError
from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    BackupsExpected,
    BackupStarted,
    DiskSkipped,
    HookFailed,
    TargetSpace,
)
from virtbackup_async.model.storage_location import StorageLocation


@pytest.fixture
def run(tmp_path):
    (tmp_path / "target").mkdir()
    images = {dev: tmp_path / f"{dev}.raw" for dev in ("vda", "vdb")}
    for image in images.values():
        image.write_bytes(b"x" * 65536)

    async def run(groups, *names, domain=None, hooks=None, **more):
        path = tmp_path / "config.yml"
        default = {"target": str(tmp_path / "target"), "packager": "directory"}
        settings = {"default": default, "groups": groups, "hooks": hooks or {}}
        path.write_text(yaml.safe_dump(settings))
        domain = domain or DescribedDomain(images, active=False)
        # Locks are the host's: another run of the tests must not hold this one up.
        domain.uuid = str(uuid4())
        events = []
        hypervisor = FakeHypervisor(domain)
        await run_backup(
            Runtime(load_config(path), events.append, hypervisor), BackupRequest(names, **more)
        )
        return events

    run.images = images
    return run


ALL = {"hosts": ["fake"], "autostart": True}


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ({}, "the configuration has no groups"),
        ({"a": {"hosts": ["fake"]}}, "no group has autostart: true"),
        (
            {"a": {"hosts": ["fake"], "compression": "xz"}},
            "passed over without an autostart key: a",
        ),
        ({"a": {**ALL, "autostart": False}}, "no group has autostart: true"),
        ({"a": {**ALL, "hosts": ["r:^nobody"]}}, "group a matches no domain"),
        ({"a": {**ALL, "hosts": []}}, "group a matches no domain"),
        ({"a": {**ALL, "hosts": ["fake", "!fake"]}}, "group a matches no domain"),
    ],
)
async def test_run_that_backs_up_nothing_is_no_good_night(run, groups, reason, tmp_path):
    told = tmp_path / "told"
    hooks = {"on_failure": f"cat > {told}"}
    with pytest.raises(BackupsFailedError) as caught:
        await run(groups, hooks=hooks)
    assert caught.value.message.startswith("nothing was backed up: ")
    assert reason in caught.value.message
    assert "--allow-empty" in caught.value.hint
    assert "nothing was backed up" in told.read_text(), "`on_failure` was called"
    events = await run(groups, hooks=hooks, allow_empty=True)
    assert not [event for event in events if isinstance(event, BackupFailed | HookFailed)]


async def test_named_group_that_matches_nothing_backs_up_nothing(run):
    groups = {"a": {"hosts": ["r:^nobody"]}, "b": ALL}
    with pytest.raises(BackupsFailedError):
        await run(groups, "a")
    events = await run(groups, "a", "b")
    assert [event.domain for event in events if isinstance(event, BackupDone)] == ["fake"], events


async def test_backup_without_a_disk_that_the_one_before_has_says_so(run):
    def done(events):
        (ended,) = (event for event in events if isinstance(event, BackupDone | BackupFailed))
        assert isinstance(ended, BackupDone), ended
        return ended

    whole = DescribedDomain(run.images, active=False)
    xml = (await whole.info()).xml

    class Domain(DescribedDomain):
        """One whose system disk is a block device, of which no backup can be made now."""

        async def info(self):
            block = "<disk type='block'><source dev='/dev/vg/x'/><target dev='vda'/></disk>"
            first, _, rest = xml.partition("</disk>")
            head = first.partition("<disk")[0]
            return replace(await super().info(), xml=f"{head}{block}{rest}")

    lacking = Domain(run.images, active=False)
    assert done(await run({"a": ALL}, domain=whole)).missing == ()
    events = await run({"a": ALL}, domain=lacking)
    assert [event.disk for event in events if isinstance(event, DiskSkipped)] == ["vda", "vdz"]
    assert done(events).missing == ("vda",)
    assert done(await run({"a": ALL}, domain=lacking)).missing == ()
    only = {"a": {**ALL, "hosts": [{"host": "fake", "disks": ["vdb"]}]}}
    assert done(await run({"a": ALL}, domain=whole)).missing == ()
    assert done(await run(only, domain=whole)).missing == (), "the configuration wants it so"


async def test_one_domain_is_backed_up_with_a_note_and_pinned(run, tmp_path):
    other = {"hosts": ["fake"], "target": str(tmp_path / "other")}
    await run({"a": ALL, "b": other}, "a/fake", note=" before the upgrade ", pinned=True)
    (found,) = (await Catalog(StorageLocation.of(tmp_path / "target")).scan()).complete
    assert found.definition.note == "before the upgrade"
    assert found.definition.pinned
    config = load_config(tmp_path / "config.yml")
    (listing,) = await list_backups(config, ["a"], (), known_domains=None)
    (listed,) = listing.backups_by_domain["fake"]
    assert (listed.note, listed.pinned) == ("before the upgrade", True)
    assert not (tmp_path / "other").exists()


async def test_a_note_that_is_none_stops_the_run_before_anything_is_begun(run, tmp_path):
    with pytest.raises(ConfigError, match="control character"):
        await run({"a": ALL}, "fake", note="\x1b[2J")
    assert list((tmp_path / "target").iterdir()) == []


async def test_every_event_of_a_backup_says_which_one_it_belongs_to(run):
    domain = DescribedDomain(run.images, active=False)
    events = await run({"a": ALL}, domain=domain)
    (started,) = (event for event in events if isinstance(event, BackupStarted))
    events = [event for event in events if not isinstance(event, BackupsExpected | TargetSpace)]
    of_backup = events[events.index(started) :]
    assert len(of_backup) > 5
    for event in of_backup:
        labels = (event.group, event.domain, event.backup, event.uuid)
        assert labels == ("a", "fake", started.backup, domain.uuid), event
    before = events[1 : events.index(started)]
    assert {event.kind for event in before} >= {"phase"}
    assert {event.group for event in before} == {"a"}


async def test_a_failed_backup_says_the_kind_of_error_and_what_to_do(run):
    events = await run({"a": {**ALL, "target": "/nowhere"}})
    (failed,) = (event for event in events if isinstance(event, BackupFailed))
    assert (failed.error_code, failed.exit_code) == ("storage", 22), failed
    assert failed.advice is not None
