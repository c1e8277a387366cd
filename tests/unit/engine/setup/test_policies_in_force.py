"""A writer and its keeper under the policies that `config protect` prints.

By SeaweedFS itself, and by what AWS documents of the condition that SeaweedFS does not know.
"""

import secrets
from random import Random

import pytest

from bucket_policies import is_allowed, judged_by, new_user, printed_policies
from fakes.other_site import OtherSite
from faults.lossy_proxy import lossy_proxy
from object_server import BUCKET, KEYS, set_credentials
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.doctor.append_only import check_append_only
from virtbackup_async.errors import StorageError
from virtbackup_async.events import BackupFailed, BackupRemoved, RemovalFailed
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import open_storage

MIB = 1 << 20


class PolicySite(OtherSite):
    """A host whose target is in a bucket that only allows what a policy says."""

    def __init__(self, root, place, monkeypatch):
        self.place_of, self.monkeypatch = place, monkeypatch
        super().__init__(root, open_storage(place))
        self.target_place = place
        self.image.write_bytes(Random(3).randbytes(8 * MIB))

    def change(self):
        with self.image.open("r+b") as file:
            file.write(Random(4).randbytes(MIB))

    async def clean(self):
        rules = {"keep_last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0}
        self.group |= {"append_only": False, **rules}
        await run_clean(self.runtime(), CleanRequest())


def new_place(endpoint):
    return StorageLocation("s3", f"{BUCKET}/{secrets.token_hex(6)}", endpoint=endpoint)


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))


@pytest.fixture(params=["as SeaweedFS enforces them", "as AWS documents them"])
def site(request, tmp_path, object_server, monkeypatch, state):
    """A site, and what gives it the keys of the other role."""
    if request.param.startswith("as Seaweed"):
        place = new_place(object_server.endpoint)
        _, writer, keeper = printed_policies(place)
        roles = {
            name: new_user(object_server.endpoint, policy)
            for name, policy in (("writer", writer), ("keeper", keeper))
        }
        set_credentials(monkeypatch, roles["writer"])
        site = PolicySite(tmp_path, place, monkeypatch)
        site.is_conditional = False

        def become(role):
            set_credentials(monkeypatch, KEYS if role == "admin" else roles[role])

        site.become = become
        yield site
        return
    set_credentials(monkeypatch)
    with lossy_proxy(object_server.endpoint) as proxy:
        place = new_place(proxy.endpoint)
        writer, _, keeper = printed_policies(place)
        judges = {"writer": judged_by(writer), "keeper": judged_by(keeper)}
        judges["admin"] = lambda *_: None
        proxy.judge = judges["writer"]
        site = PolicySite(tmp_path, place, monkeypatch)
        site.is_conditional = True
        site.become = lambda role: setattr(proxy, "judge", judges[role])
        yield site


async def test_a_writer_adds_and_the_keeper_cleans(site):
    first = await site.back_up(append_only=True)
    site.change()
    second = await site.back_up()
    assert first.stored_bytes > 8 * MIB
    assert second.stored_bytes < 2 * MIB  # all the rest is there already
    assert not site.warnings()
    storage = open_storage(site.target_place)
    files = [name for name, _ in storage.calls.list_below("") if "/leases/" not in name]
    for name in files:
        with pytest.raises(StorageError, match="denies access"):
            storage.remove(name)
    packs_and_definitions = [name for name in files if "/packs/" in name or name.endswith(".json")]
    assert len(packs_and_definitions) >= 4
    if site.is_conditional:
        for name in packs_and_definitions:
            with pytest.raises(StorageError, match="denies access"):
                storage.replace(name, b"other")
    for name in ("condemned", "damaged", "leases/sweep"):
        with pytest.raises(StorageError, match="denies access"):
            storage.replace(f".virtbackup-repository/{name}", b"other")

    site.become("keeper")
    await site.clean()
    assert [event.backup for event in site.of(BackupRemoved)] == [first.backup]
    assert not site.of(RemovalFailed)
    assert [found.definition.name for found in (await site.scan()).complete] == [second.backup]


async def test_a_backup_that_fails_says_why_and_leaves_the_rest_to_the_keeper(site):
    """The writer cannot remove what it has stored; its guest is back on its disks anyway."""
    await site.back_up(append_only=True)
    kept = packs(site)
    site.change()
    with site.monkeypatch.context() as failing:
        failing.setattr(Catalog, "write_definition", fail)
        await run_backup(site.runtime(), BackupRequest())
    (failed,) = site.of(BackupFailed)
    assert failed.error.startswith("the cable was pulled; what it stored stays for `clean`: ")
    assert "denies access" in failed.error
    assert not failed.left_pending
    assert site.domain.live == site.domain.own
    assert len(packs(site)) == len(kept) + 1
    site.become("keeper")
    await site.clean()
    (warned,) = site.warnings()
    name = warned.removeprefix(f"left alone, belongs to no backup: {site.target_place}/")
    assert name.endswith(".map")
    open_storage(site.target_place).remove(name)
    await site.clean()
    assert packs(site) == kept


def packs(site):
    below = open_storage(site.target_place).calls.list_below(".virtbackup-repository/packs")
    return sorted(name for name, _ in below)


async def fail(*_):
    raise StorageError("the cable was pulled")


async def test_doctor_finds_what_the_policy_leaves_open(site):
    await site.back_up(append_only=True)
    (found,) = check_append_only(site.target_place, "here", expected=True)
    if site.is_conditional:
        assert found.code == "append_only", found.message
    else:
        assert found.code == "not_append_only"
        assert found.message.startswith("this host can overwrite files in it")


def test_nobody_gets_out_of_the_prefix():
    place = StorageLocation("s3", "bucket/hosts")
    for policy in printed_policies(place):
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
            assert not is_allowed(policy, action, "arn:aws:s3:::bucket/other/x", {})
        assert not is_allowed(policy, "s3:ListBucket", "arn:aws:s3:::bucket", {"s3:prefix": "x/"})
        assert not is_allowed(policy, "s3:ListBucket", "arn:aws:s3:::bucket", {})
        assert is_allowed(
            policy, "s3:ListBucket", "arn:aws:s3:::bucket", {"s3:prefix": "hosts/web/"}
        )
        for action in (
            "s3:PutBucketPolicy",
            "s3:DeleteObjectVersion",
            "s3:BypassGovernanceRetention",
        ):
            assert not is_allowed(policy, action, "arn:aws:s3:::bucket/hosts/x", {})
