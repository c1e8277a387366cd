"""Backups that lack disks of their domain: what is refused before anything is touched."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from fakes.hypervisor import FakeHypervisor
from virtbackup_async.engine.inventory.lacking import refuse_mixture
from virtbackup_async.engine.restore.define import DefineRequest, check_definable
from virtbackup_async.errors import NotFoundError
from virtbackup_async.model.backup import Definition, Packager
from virtbackup_async.model.domain import NOT_WANTED

NAME = "20260301-021500_3_web"
XML = """<domain><name>web</name><devices>
<disk type='block'><source dev='/dev/vg/web'/><target dev='vda'/></disk>
<disk type='file'><source file='/i/b.qcow2'/><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><source file='/i/debian.iso'/><target dev='sda'/></disk>
</devices></domain>"""
LACKING = Definition(
    name=NAME, domain_id=3, domain_name="web", domain_xml=XML, disks={"vdb": f"{NAME}_vdb.raw"},
    version="1.1.0", date=1772331300, packager=Packager("directory"),
    skipped={"vda": "a block disk", "sda": "a cdrom"},
)  # fmt: skip
WHOLE = replace(LACKING, disks={"vda": f"{NAME}_vda.raw", **LACKING.disks}, skipped={})


def request(definition, **changed):
    return DefineRequest(
        definition, Path("/srv/t/web"), Path("/srv/restored"), **{"start": True, **changed}
    )


async def test_domain_with_old_disks_beside_those_of_today_is_not_started():
    with pytest.raises(NotFoundError, match=r"lacks disks of the domain.*: vda") as caught:
        await check_definable(request(LACKING), FakeHypervisor())
    assert "--allow-missing" in caught.value.hint
    with pytest.raises(NotFoundError, match="vda"):
        await check_definable(request(LACKING, new_name="twin"), FakeHypervisor())


@pytest.mark.parametrize(
    "wanted",
    [
        request(WHOLE),
        request(LACKING, start=False),
        request(LACKING, allow_missing=True),
        request(LACKING, disks=("vdb",)),
    ],
)
async def test_what_is_whole_or_wanted_so_is_defined(wanted):
    await check_definable(wanted, FakeHypervisor())


def test_images_are_not_replaced_beside_disks_that_stay():
    with pytest.raises(NotFoundError, match="which would stay as they are: vda"):
        refuse_mixture(LACKING, ())
    refuse_mixture(LACKING, ("vdb",))
    refuse_mixture(WHOLE, ())
    refuse_mixture(replace(LACKING, skipped={"vda": NOT_WANTED}), ())
    refuse_mixture(replace(WHOLE, skipped={"tpm": "no file can be read"}), ())
