from pathlib import Path

import pytest
from lxml import etree

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import Disk, SkippedDisk


def domain(devices):
    return f"<domain><name>web</name><devices>{devices}</devices></domain>"


def disk(dev, extra="", *, kind="file", device="disk", source="file='/i/{dev}'", driver="qcow2"):
    source = f"<source {source.format(dev=dev)}/>" if source else ""
    driver = f"<driver name='qemu' type='{driver}'/>" if driver else ""
    return (
        f"<disk type='{kind}' device='{device}'>{driver}{source}"
        f"<target dev='{dev}' bus='virtio'/>{extra}</disk>"
    )


def test_file_disks_are_taken():
    wanted, skipped = domain_xml.disks(domain(disk("vda") + disk("vdb", driver="raw")))
    assert wanted == (
        Disk("vda", Path("/i/vda"), "qcow2"),
        Disk("vdb", Path("/i/vdb"), "raw"),
    )
    assert skipped == ()


def test_a_disk_without_driver_is_raw():
    wanted, _ = domain_xml.disks(domain(disk("vda", driver=None)))
    assert wanted[0].format == "raw"


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (disk("x", device="cdrom"), "a cdrom"),
        (disk("x", device="floppy"), "a floppy"),
        (disk("x", device="lun", kind="block"), "a lun"),
        (disk("x", kind="block", source="dev='/dev/sda'"), "a block disk"),
        (disk("x", kind="network", source="protocol='rbd' name='p/i'"), "a network disk"),
        (disk("x", kind="volume", source="pool='p' volume='v'"), "a volume disk"),
        (disk("x", source=None), "has no image"),
        (disk("x", "<readonly/>"), "read-only"),
        (disk("x", "<transient/>"), "transient"),
        (disk("x", "<shareable/>"), "shared between domains"),
        (disk("x", driver="vmdk"), "format vmdk is not supported"),
    ],
)
def test_what_cannot_be_snapshotted_is_named_with_its_reason(element, reason):
    wanted, skipped = domain_xml.disks(domain(element))
    assert wanted == ()
    assert [type(skip) for skip in skipped] == [SkippedDisk]
    assert skipped[0].reason.startswith(reason)


def test_sources_of_all_disks_with_a_file():
    xml = domain(disk("vda") + disk("hdc", device="cdrom", source=None))
    assert domain_xml.disk_sources(xml) == {"vda": Path("/i/vda")}


def test_disks_with_a_block_job():
    xml = domain(disk("vda", "<mirror type='file' ready='yes'/>") + disk("vdb"))
    assert domain_xml.devs_with_block_job(xml) == {"vda"}


def test_agent_channel():
    channel = "<channel type='unix'><target type='virtio' name='{}'/></channel>"
    assert domain_xml.has_agent_channel(domain(channel.format("org.qemu.guest_agent.0")))
    assert not domain_xml.has_agent_channel(domain(channel.format("org.spice")))
    assert not domain_xml.has_agent_channel(domain(""))


def test_a_new_source_replaces_path_format_and_chain():
    chain = "<backingStore type='file'><source file='/i/base'/></backingStore>"
    xml = domain(disk("vda") + disk("vdb", chain))
    changed = etree.fromstring(domain_xml.with_source(xml, "vdb", Path("/new/ü & <b>"), "raw"))
    assert changed.find("source").get("file") == "/new/ü & <b>"
    assert changed.find("driver").get("type") == "raw"
    assert changed.find("backingStore") is None
    with pytest.raises(DefinitionError, match="no disk vdz"):
        domain_xml.with_source(xml, "vdz", Path("/x"), "raw")


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain>",
        "not xml",
        "<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><domain>&e;</domain>",
        "<!DOCTYPE d [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><domain>&b;</domain>",
        "<!DOCTYPE domain SYSTEM 'http://example.com/x.dtd'><domain/>",
        "<domain>\0</domain>",
        "<a>" * 5000 + "</a>" * 5000,
    ],
)
def test_hostile_xml_is_refused(xml):
    with pytest.raises(DefinitionError):
        domain_xml.parse(xml)


PULLED = """<domain><devices>
  <disk type='file'><driver name='qemu' type='qcow2'/><source file='/i/a.qcow2'/>
    <backingStore type='file'><source file='/i/base'/></backingStore><target dev='vda'/></disk>
  <disk type='block'><source dev='/dev/vg/lv'/><target dev='vdb'/></disk>
  <disk type='network'><source protocol='rbd' name='pool/img'/><target dev='vdc'/></disk>
  <disk type='volume'><source pool='p' volume='v'/><target dev='vdd'/></disk>
  <disk type='block' device='cdrom'><target dev='hda'/></disk>
</devices></domain>"""


def test_what_qemu_serves_need_not_be_a_file():
    by_snapshot, left = domain_xml.disks(PULLED)
    assert [disk.dev for disk in by_snapshot] == ["vda"]
    assert "method: pull" in {disk.dev: disk.reason for disk in left}["vdc"]
    served, left = domain_xml.disks(PULLED, pull=True)
    assert [(disk.dev, str(disk.path), disk.kind) for disk in served] == [
        ("vda", "/i/a.qcow2", "file"),
        ("vdb", "/dev/vg/lv", "block"),
        ("vdc", "rbd:pool/img", "network"),
    ]
    assert [disk.dev for disk in left] == ["vdd", "hda"]


def test_pulled_disks_are_raw_with_nothing_below():
    raw = domain_xml.with_raw_disks(PULLED, {"vda", "vdb"})
    assert "type='qcow2'" not in raw.replace('"', "'")
    assert "backingStore" not in raw
    assert domain_xml.disk_sources(raw) == domain_xml.disk_sources(PULLED)
