"""Restoring a backup as a domain: its images, their chain, and what libvirt is asked for."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from fakes.hypervisor import FakeDomain, FakeHypervisor
from fakes.site import Site
from lab.process import run
from virtbackup_async.engine.restore.define import DefineRequest, restore_domain
from virtbackup_async.errors import DefinitionError, HypervisorError
from virtbackup_async.events import DomainDefined, RestoreDone
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Definition, DiskRecord, ImageRecord, Packager
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.qemu import qemu_img

MIB = 1 << 20
NAME = "20260301-021500_3_web"
UUID = "11111111-2222-4333-8444-555555555555"


class FullHypervisor(FakeHypervisor):
    """One that may refuse to define a domain, or to start it."""

    def __init__(self, *domains, refuses=None):
        super().__init__(*domains)
        self.refuses = refuses
        self.xml = None

    async def define(self, xml):
        self.xml = xml
        if self.refuses == "define":
            raise HypervisorError("no such machine type")
        domain = await super().define(xml)
        if self.refuses == "start":
            domain.before["start"] = [self.refuse]
        return domain

    def refuse(self):
        raise HypervisorError("no memory")


class DefinedSite(Site):
    """A backup of ``vda``, a qcow2 image over a raw one, and a second disk that is not in it."""

    def __init__(self, root):
        super().__init__(root)
        self.directory = self.target / "web"
        self.restored = root / "restored"
        self.libvirt = FullHypervisor()

    @property
    def hypervisor(self):
        return self.libvirt

    async def make(self):
        images = self.root / "images"
        images.mkdir()
        self.directory.mkdir(parents=True)
        base, top = images / "base.raw", images / "web.qcow2"
        base.write_bytes(b"\x01" * MIB)
        run("qemu-img", "create", "-qf", "qcow2", "-F", "raw", "-b", str(base), str(top))
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", str(top))
        files = {f"{NAME}_vda.qcow2": top, f"{NAME}_vda-backing1.raw": base}
        packager, records = Packager("directory"), []
        async with open_writer(packager, self.directory, NAME, CpuShares(1)) as package:
            for file, path in files.items():
                async with open_image_stream(path, BufferPool()) as stream:
                    stored = await package.add_disk(file, stream, lambda _: None)
                    records.append(
                        ImageRecord(
                            file, str(path), path.suffix[1:], stream.size_bytes,
                            stream.data_bytes, stored, stream.digest,
                        )
                    )  # fmt: skip
            await package.finish()
        xml = f"""<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><devices>
            <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
            <source file='{top}'/><target dev='vda'/></disk></devices></domain>"""
        self.definition = Definition(
            name=NAME, domain_id=3, domain_name="web", domain_xml=xml, domain_uuid=UUID,
            disks={"vda": f"{NAME}_vda.qcow2"}, version="1.1.0", packager=packager,
            date=int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()),
            records={"vda": DiskRecord(records[0], (records[1],))},
        )  # fmt: skip
        return self

    async def restore(self, definition=None, **options):
        request = DefineRequest(
            definition or self.definition, self.directory, self.restored, **options
        )
        return await restore_domain(self.runtime(), request)


@pytest.fixture
async def site(tmp_path):
    return await DefinedSite(tmp_path).make()


async def test_a_domain_is_defined_on_what_was_restored(site):
    restored = await site.restore()
    domain = site.libvirt.domains["web"]
    assert domain.persistent == {"vda": site.restored / "web.qcow2"}
    assert "start" not in domain.calls
    defined = DomainDefined("web", UUID, NAME, started=False, rebased=("web.qcow2",))
    assert restored.domain == defined
    assert [event for event in site.events if isinstance(event, RestoreDone | DomainDefined)] == [
        restored.files,
        defined,
    ]
    assert site.warnings() == []


async def test_a_restored_chain_stands_on_its_own(site):
    """The original base may be gone, or changed: QEMU reads the restored one."""
    await site.restore()
    (site.root / "images" / "base.raw").unlink()
    top = site.restored / "web.qcow2"
    info = await qemu_img.image_info(top, "qcow2")
    assert info.backing_filename == str(site.restored / "base.raw")
    assert info.backing_filename_format == "raw"
    run("qemu-io", "-f", "qcow2", "-c", "read -P 7 0 64k", "-c", "read -P 1 64k 960k", str(top))


async def test_a_chain_that_fits_already_is_left_as_it_is(site):
    site.restored = site.root / "images"
    for name in ("base.raw", "web.qcow2"):
        (site.restored / name).unlink()
    assert (await site.restore()).domain.rebased == ()


async def test_a_domain_is_started_if_that_is_wanted(site):
    restored = await site.restore(start=True)
    assert restored.domain.started
    assert "start" in site.libvirt.domains["web"].calls


@pytest.mark.parametrize("taken", ["name", "uuid"])
async def test_nothing_is_restored_where_the_domain_cannot_be_defined(site, taken):
    there = FakeDomain({})
    there.name, there.uuid = ("web", "other") if taken == "name" else ("other", UUID)
    site.libvirt = FullHypervisor(there)
    with pytest.raises(HypervisorError, match=f"a domain {there.name} with UUID {there.uuid}"):
        await site.restore()
    assert not site.restored.exists()
    assert site.libvirt.xml is None


async def test_a_twin_takes_neither_the_name_nor_the_identity(site):
    there = FakeDomain({})
    there.name, there.uuid = "web", UUID
    site.libvirt = FullHypervisor(there)
    restored = await site.restore(new_name="twin")
    assert restored.domain.domain == "twin"
    assert restored.domain.uuid != UUID
    assert UUID not in site.libvirt.xml
    assert site.libvirt.domains["web"] is there


@pytest.mark.parametrize("refuses", ["define", "start"])
async def test_what_is_restored_stays_where_libvirt_refuses(site, refuses):
    site.libvirt.refuses = refuses
    with pytest.raises(HypervisorError) as caught:
        await site.restore(start=True)
    assert caught.value.hint is not None
    assert f"in {site.restored}" in caught.value.hint
    assert {path.name for path in site.restored.iterdir()} == {"web.qcow2", "base.raw", "web.xml"}


async def test_a_backup_whose_xml_is_lost_is_not_restored(site):
    with pytest.raises(DefinitionError):
        await site.restore(replace(site.definition, domain_xml=""))
    assert not site.restored.exists()


async def test_a_disk_that_stays_on_its_image_of_today_is_named(site):
    disk = (
        "<disk type='file'><driver type='raw'/><source file='/i/data.raw'/><target dev='vdb'/>"
        "</disk></devices>"
    )
    xml = site.definition.domain_xml.replace("</devices>", disk)
    await site.restore(replace(site.definition, domain_xml=xml))
    assert site.warnings() == ["vdb is not restored: the domain is on its image of today there"]
    assert "/i/data.raw" in site.libvirt.xml
