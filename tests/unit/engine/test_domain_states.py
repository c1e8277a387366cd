"""What the state of a domain allows."""

import pytest
from msgspec.structs import replace

from fakes.hypervisor import FakeDomain
from virtbackup_async.engine.domain_states import (
    check_free,
    check_replaceable,
    check_snapshot,
    check_still_active,
)
from virtbackup_async.errors import (
    ChangedMeanwhileError,
    ConnectionLostError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
)
from virtbackup_async.model.domain import DomainInfo

FAILED = HypervisorError("it failed")


@pytest.fixture
def domain(tmp_path):
    return FakeDomain({"vda": tmp_path / "a", "vdb": tmp_path / "b"})


def failing(error):
    def act():
        raise error

    return act


async def test_a_block_job_on_another_disk_is_in_nobodys_way(domain):
    domain.jobs = frozenset({"vdb"})
    await check_free(domain, ["vda"])
    with pytest.raises(HypervisorError, match=r"a block job works on vdb.*blockjob fake vdb"):
        await check_free(domain, ["vda", "vdb"])


async def test_a_domain_that_still_runs_keeps_its_error(domain):
    await check_still_active(domain, FAILED)


async def test_a_domain_that_was_shut_off_is_backed_up_again(domain):
    domain.shut_off()
    with pytest.raises(ChangedMeanwhileError, match="shut off during its backup") as raised:
        await check_still_active(domain, FAILED)
    assert raised.value.__cause__ is FAILED


async def test_a_domain_that_is_gone_is_said_to_be(domain):
    domain.before["info"] = [failing(DomainNotFoundError("none"))]
    with pytest.raises(DomainGoneError, match="libvirt knows it no more"):
        await check_still_active(domain, FAILED)


async def test_without_libvirt_the_error_stays_what_it_is(domain):
    domain.before["info"] = [failing(ConnectionLostError("closed"))]
    await check_still_active(domain, FAILED)


def test_a_suspended_guest_gets_no_snapshot():
    info = DomainInfo("web", "u", 1, True, True, "<domain/>")
    check_snapshot(info)
    with pytest.raises(HypervisorError, match=r"suspended.*dompmwakeup web"):
        check_snapshot(replace(info, is_suspended=True))


async def test_images_in_use_are_not_replaced(domain, tmp_path):
    with pytest.raises(HypervisorError, match="is running"):
        await check_replaceable(domain, remove_saved=True)
    domain.shut_off()
    await check_replaceable(domain, remove_saved=False)
    domain.saved = {"vda": tmp_path / "a"}
    with pytest.raises(HypervisorError, match="old memory on new disks"):
        await check_replaceable(domain, remove_saved=False)
    await check_replaceable(domain, remove_saved=True)
