"""Looking around: whoever does not answer, or is not there, is unknown, and the rest goes on."""

import os

import pytest

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from virtbackup_async.engine.setup.proposal import rank
from virtbackup_async.engine.setup.survey import survey
from virtbackup_async.errors import DomainNotFoundError, HypervisorError
from virtbackup_async.events import AgentState
from virtbackup_async.files.mounts import mount_of, read_mounts

URI = "qemu:///system"


@pytest.fixture
def images(tmp_path):
    found = {"vda": tmp_path / "a.raw", "vdb": tmp_path / "b.raw"}
    for image in found.values():
        with image.open("wb") as file:
            file.write(os.urandom(65536))
    return found


async def test_a_domain_is_found_with_its_disks_and_what_they_take(images, tmp_path):
    site = await survey(FakeHypervisor(DescribedDomain(images)), URI)
    (domain,) = site.domains
    assert (site.uri, domain.domain, domain.running, domain.error) == (URI, "fake", True, None)
    assert domain.agent is AgentState.NONE
    assert {"vda", "vdb"} <= set(domain.disks)
    assert domain.used_bytes == sum(image.stat().st_blocks for image in images.values()) * 512
    assert site.used_bytes == domain.used_bytes
    mount = mount_of(tmp_path.resolve(), read_mounts())
    holding = [found.path for found in site.file_systems if found.images_of]
    assert holding == [str(mount.point)] if mount.is_storage else holding == []
    assert set(images.values()) <= set(site.images["fake"].paths)


async def test_an_image_that_is_gone_makes_the_amount_unknown(images):
    images["vdb"].unlink()
    (domain,) = (await survey(FakeHypervisor(DescribedDomain(images)), URI)).domains
    assert domain.used_bytes is None
    assert domain.error is None


async def test_a_domain_that_goes_meanwhile_does_not_stop_the_others(images):
    going, staying = DescribedDomain(images), DescribedDomain(images)
    going.name, staying.name = "going", "staying"

    def go():
        raise DomainNotFoundError("no such domain", domain="going")

    going.before["info"] = [go]
    site = await survey(FakeHypervisor(going, staying), URI)
    assert [(domain.domain, domain.error) for domain in site.domains] == [
        ("going", "no such domain"),
        ("staying", None),
    ]


async def test_a_libvirt_without_domains_has_none():
    site = await survey(FakeHypervisor(), URI)
    assert site.domains == ()
    assert site.used_bytes == 0


async def test_a_libvirt_that_does_not_answer_is_an_error():
    class Dead(FakeHypervisor):
        async def domain_names(self):
            raise HypervisorError("cannot connect")

    with pytest.raises(HypervisorError, match="cannot connect"):
        await survey(Dead(), URI)


async def test_where_this_user_may_not_write_nothing_is_proposed(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    site = await survey(FakeHypervisor(), URI)
    assert {found.unfit for found in site.file_systems} <= {
        "not writable by this user", "read-only", "too small, or full", "for the system",
    }  # fmt: skip
    assert rank(site) == []


async def test_of_this_host_only_storage_is_found_each_once():
    site = await survey(FakeHypervisor(), URI)
    found = [file_system.path for file_system in site.file_systems]
    assert len(set(found)) == len(found)
    assert "/proc" not in found
    assert "/dev/shm" not in found
