"""Which method backs a domain up, and where a pull job's files go."""

import pytest

from fakes.hypervisor import FakeHypervisor
from virtbackup_async.config.schema import Group
from virtbackup_async.engine.point_in_time.open import is_pulled
from virtbackup_async.engine.point_in_time.pull_paths import plan_pull
from virtbackup_async.errors import HypervisorError
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.domain import Disk, DomainInfo, HostVersions
from virtbackup_async.model.pull import Method

XML = """<domain><devices>
  <disk type='file'><source file='/i/a'/><target dev='vda'/></disk>
  <disk type='block'><source dev='/dev/vg/lv'/><target dev='vdb'/></disk>
  <disk type='network'><source protocol='rbd' name='pool/img'/><target dev='vdc'/></disk>
  <channel type='unix'><source mode='bind' path='{}/agent.0'/></channel>
</devices></domain>"""


def info(xml, *, active=True):
    return DomainInfo("web", "u", 1 if active else -1, active, True, xml)


class Old(FakeHypervisor):
    async def versions(self):
        return HostVersions("QEMU", (6, 0, 0), (7, 2, 0))


@pytest.mark.parametrize(
    ("configured", "wanted", "active", "expected"),
    [
        (Method.SNAPSHOT, (), True, False),
        (Method.PULL, (), True, True),
        (Method.PULL, (), False, True),
        (Method.AUTO, (), True, True),
        (Method.AUTO, ("vda",), True, False),
        (Method.AUTO, ("vda", "vdc"), True, True),
        (Method.AUTO, (), False, True),
        (Method.AUTO, ("vda",), False, False),
    ],
)
async def test_the_method_is_chosen(configured, wanted, active, expected):
    described = info(XML.format("/c"), active=active)
    group = Group("g", None, method=configured)
    assert await is_pulled(FakeHypervisor(), group, described, wanted) == (expected, None)


@pytest.mark.parametrize("active", [True, False])
async def test_auto_pulls_into_a_repository_whatever_the_disks_are(active):
    group = Group("g", None, Packager("repository"), method=Method.AUTO)
    described = info(XML.format("/c"), active=active)
    assert await is_pulled(FakeHypervisor(), group, described, ("vda",)) == (True, None)


async def test_an_old_libvirt_takes_a_snapshot_and_a_warning():
    pull, warning = await is_pulled(
        Old(), Group("g", None, method=Method.PULL), info(XML.format("/c")), ()
    )
    assert not pull
    assert warning == (
        "libvirt 6.0.0 cannot serve disks, it takes 7.6.0: its disks are snapshotted instead"
    )


async def planned_pull(described, disks, scratch):
    return await plan_pull(LocalHost(), described, disks, scratch, "0a0b0c0d")


async def test_names_are_in_the_directories_of_libvirt_and_of_the_configuration(tmp_path):
    disks = [Disk("vda", tmp_path / "a", "raw"), Disk("vdb", tmp_path, "raw", kind="block")]
    planned = await plan_pull(
        LocalHost(), info(XML.format(tmp_path)), disks, tmp_path / "scratch", "0a0b0c0d"
    )
    assert planned.socket == tmp_path / "vbk-0a0b0c0d.sock"
    assert planned.scratch["vdb"] == tmp_path / "scratch/web-vdb.vbk-0a0b0c0d.scratch"
    beside = await planned_pull(info(XML.format(tmp_path)), disks[:1], None)
    assert beside.scratch["vda"] == tmp_path / "a.vbk-0a0b0c0d.scratch"


async def test_what_has_no_place_is_said_with_what_to_do(tmp_path):
    device = Disk("vdb", tmp_path, "raw", kind="block")
    with pytest.raises(HypervisorError, match=r"vdb is a block disk.*Set `scratch`"):
        await planned_pull(info(XML.format(tmp_path)), [device], None)
    with pytest.raises(HypervisorError, match=r"no directory.*Set `scratch`"):
        await planned_pull(info(XML.format(tmp_path / ("x" * 120))), [], None)


async def test_a_socket_also_fits_into_libvirts_own_directory_of_the_domain(tmp_path):
    own = tmp_path / "domain-1-web"
    own.mkdir()
    running = DomainInfo("web", "u", 1, True, True, "<domain/>", running_directory=tmp_path)
    assert (await planned_pull(running, [], tmp_path)).socket.parent == own
    own.rmdir()
    assert (await planned_pull(running, [], tmp_path)).socket.parent == tmp_path
