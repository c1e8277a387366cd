"""engine/undo/find_domain.py: the domain of a pending file, whatever became of it since."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from fakes.hypervisor import UUID, FakeDomain, FakeHypervisor
from virtbackup_async.engine.undo.find_domain import GoneDomain, find_domain, lock_name
from virtbackup_async.errors import RollbackError
from virtbackup_async.model.backup import Packager, Pending, PendingDisk

IMAGE, OVERLAY = Path("/i/vda.raw"), Path("/i/vda.raw.vbk-1")
XML = f"<domain><uuid>{UUID}</uuid></domain>"


def pending(*, uuid=None, xml="<domain/>", name="fake", snapshot=str(OVERLAY)):
    disk = PendingDisk(str(IMAGE), "raw", snapshot, "f")
    return Pending("n", 1, name, xml, {"vda": disk}, "0.5.6", 0, Packager("tar"), uuid)


def domain(*, name="fake", uuid=UUID, image=OVERLAY):
    found = FakeDomain({"vda": image})
    found.name, found.uuid = name, uuid
    return found


@pytest.mark.parametrize("known", [{"uuid": UUID.upper()}, {"xml": XML}])
async def test_by_uuid_whatever_it_is_called_now(known):
    renamed, namesake = domain(name="renamed"), domain(uuid=UUID[:-1] + "1", image=IMAGE)
    found = await find_domain(FakeHypervisor(namesake, renamed), pending(**known), is_noted=True)
    assert found is renamed


async def test_by_name_without_a_uuid():
    other, wanted = domain(name="other", image=Path("/i/o")), domain()
    assert await find_domain(FakeHypervisor(other, wanted), pending(), is_noted=True) is wanted


async def test_by_who_uses_the_overlay():
    user = domain(name="again", uuid=UUID[:-1] + "1")
    user.shut_off()
    assert await find_domain(FakeHypervisor(user), pending(uuid=UUID), is_noted=True) is user


async def test_an_image_that_another_domain_uses_is_left_to_a_person():
    user = domain(name="again", uuid=UUID[:-1] + "1", image=IMAGE)
    with pytest.raises(RollbackError, match="fake is gone, and again uses its image"):
        await find_domain(FakeHypervisor(user), pending(uuid=UUID), is_noted=True)


async def test_none_where_nobody_uses_the_images():
    other = domain(name="other", uuid=UUID[:-1] + "1", image=Path("/i/o"))
    assert isinstance(
        await find_domain(FakeHypervisor(other), pending(uuid=UUID), is_noted=True), GoneDomain
    )


async def test_without_a_note_no_other_domain_is_touched():
    user = domain(name="again", uuid=UUID[:-1] + "1")
    hypervisor = FakeHypervisor(user, domain())
    found = await find_domain(hypervisor, pending(uuid=UUID[:-1] + "2"), is_noted=False)
    assert isinstance(found, GoneDomain)


@pytest.mark.parametrize(("version", "is_found"), [("0.5.6", True), ("1.0.0", False)])
async def test_only_virt_backup_may_do_without_a_uuid(version, is_found):
    known = domain()
    unnamed = replace(pending(), version=version)
    found = await find_domain(FakeHypervisor(known), unnamed, is_noted=False)
    assert (found is known) is is_found


def test_the_lock_is_on_the_uuid_or_on_a_name_that_stays_a_file_name():
    assert lock_name(pending(uuid=UUID.upper())) == lock_name(pending(xml=XML)) == UUID
    hostile = lock_name(pending(uuid="../../x", name="../\udc80/x"))
    assert hostile.startswith("name-")
    assert "/" not in hostile
    assert lock_name(pending()) != lock_name(pending(name="other"))
