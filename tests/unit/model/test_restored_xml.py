"""A domain's XML, put on restored images: as the same domain, or as another."""

from pathlib import Path

import pytest
from lxml import etree

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.restored_xml import StateHome, restored_xml

UUID = "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b"
XML = f"""<domain type='kvm' id='3'>
  <name>web</name><uuid>{UUID}</uuid>
  <genid>11111111-2222-4333-8444-555555555555</genid>
  <sysinfo type='smbios'><system><entry name='uuid'>{UUID}</entry>
    <entry name='serial'>7</entry></system></sysinfo>
  <os><type>hvm</type><loader readonly='yes' type='pflash'>/code.fd</loader>
    <nvram template='/vars.fd'>/nvram/web.fd</nvram></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='/i/web.qcow2' index='2'/>
      <backingStore type='file'><source file='/i/golden.raw'/><backingStore/></backingStore>
      <target dev='vda'/></disk>
    <disk type='block' device='disk'><source dev='/dev/vg/data'/><target dev='vdb'/></disk>
    <disk type='file' device='disk'><source file='/i/ro.raw'/><target dev='vdc'/><readonly/></disk>
    <disk type='file' device='cdrom'><source file='/i/cd.iso'/><target dev='sda'/></disk>
    <interface type='network'><mac address='52:54:00:01:02:03'/><source network='n'/></interface>
  </devices>
</domain>"""
IMAGES = {"vda": Path("/r/web & co.qcow2")}


def test_a_driver_is_told_of_another_format():
    images = {"vda": Path("/r/a"), "vdb": Path("/r/b")}
    restored = restored_xml(XML, images, formats={"vda": "raw", "vdb": "qcow2"})
    disks = etree.fromstring(restored.xml).findall("devices/disk")[:2]
    assert [disk.find("driver").get("type") for disk in disks] == ["raw", "qcow2"]


def test_same_domain_keeps_all_but_the_images():
    restored = restored_xml(XML, IMAGES)
    root = etree.fromstring(restored.xml)
    assert (restored.name, restored.uuid, restored.left_out) == ("web", UUID, ())
    assert root.find("devices/disk/source").get("file") == "/r/web & co.qcow2"
    assert root.find("devices/disk/backingStore") is None
    devs = [target.get("dev") for target in root.findall("devices/disk/target")]
    assert devs == ["vda", "vdb", "vdc", "sda"]
    assert root.find("devices/interface/mac") is not None
    assert root.findtext("os/nvram") == "/nvram/web.fd"
    assert root.find("genid").text is None


def test_other_domain_shares_nothing_with_the_original():
    restored = restored_xml(XML, IMAGES, new_name="twin <1>")
    root = etree.fromstring(restored.xml)
    assert (restored.name, restored.uuid, restored.left_out) == ("twin <1>", None, ("vdb",))
    devs = [target.get("dev") for target in root.findall("devices/disk/target")]
    assert devs == ["vda", "vdc", "sda"]
    assert root.find("devices/interface/mac") is None
    assert root.find("os/nvram").text is None
    assert root.find("os/nvram").get("template") == "/vars.fd"
    assert [entry.get("name") for entry in root.findall("sysinfo/system/entry")] == ["serial"]
    assert UUID not in restored.xml


def test_other_domain_has_its_own_copy_of_the_state():
    tpm = "<tpm><backend type='emulator'><source type='dir' path='/t/web'/></backend></tpm>"
    xml = XML.replace("<devices>", f"<devices>{tpm}")
    state = StateHome(held={"nvram": Path("/r/web.fd")})
    twin = etree.fromstring(restored_xml(xml, IMAGES, new_name="twin", state=state).xml)
    assert twin.findtext("os/nvram") == "/r/web.fd"
    assert twin.find("devices/tpm/backend/source") is None


def test_same_domain_has_its_state_where_libvirt_keeps_it_or_where_it_was_restored():
    held = {"nvram": Path("/r/web.fd")}
    own = StateHome(frozenset({Path("/nvram")}), held)
    restored = restored_xml(XML, IMAGES, state=own)
    assert etree.fromstring(restored.xml).findtext("os/nvram") == "/nvram/web.fd"
    assert restored.moved == ()
    restored = restored_xml(XML, IMAGES, state=StateHome(frozenset({Path("/")}), held))
    assert etree.fromstring(restored.xml).findtext("os/nvram") == "/r/web.fd"
    (said,) = restored.moved
    assert said.endswith("the domain uses /r/web.fd, not /nvram/web.fd")


@pytest.mark.parametrize(
    ("disk", "kept"),
    [
        ("<disk device='cdrom'><source file='/x'/><target dev='sdb'/><readonly/></disk>", True),
        ("<disk device='disk'><source file='/x'/><target dev='sdb'/><readonly/></disk>", True),
        ("<disk device='floppy'><source file='/x'/><target dev='fda'/></disk>", False),
        ("<disk device='disk'><source file='/x'/><target dev='sdb'/><shareable/></disk>", False),
        ("<disk device='disk'><source file='/x'/><target dev='sdb'/><transient/></disk>", False),
        ("<disk device='lun'><source dev='/x'/><target dev='sdb'/></disk>", False),
    ],
)
def test_other_domain_has_no_disk_of_the_original_that_it_could_write_to(disk, kept):
    xml = XML.replace("<devices>", f"<devices>{disk}")
    assert ("/x" in restored_xml(xml, IMAGES, new_name="twin").xml) == kept


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<network><name>x</name></network>", "not of a domain"),
        ("<domain/>", "no disk vda"),
        ("", "cannot be read"),
        ("<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><domain>&e;</domain>", "XML"),
        (XML.replace("<name>web</name>", ""), "no name"),
    ],
)
def test_what_is_no_domain_with_these_disks_is_refused(xml, said):
    with pytest.raises(DefinitionError, match=said):
        restored_xml(xml, IMAGES)


def test_a_disk_that_was_no_file_is_one_when_it_is_restored():
    xml = """<domain><name>web</name><devices>
      <disk type='network'><source protocol='rbd' name='pool/img'><host name='mon'/></source>
        <target dev='vda'/></disk>
      <disk type='block'><source dev='/dev/vg/lv' index='1'/><target dev='vdb'/></disk>
    </devices></domain>"""
    images = {"vda": Path("/r/img.raw"), "vdb": Path("/r/lv.raw")}
    root = etree.fromstring(restored_xml(xml, images).xml)
    for disk, path in zip(root.findall("devices/disk"), images.values(), strict=True):
        source = disk.find("source")
        assert disk.get("type") == "file"
        assert dict(source.attrib) == {"file": str(path)}
        assert len(source) == 0


# What libvirt's schema has below <source>, and is not true of a file of its own.
FOREIGN = """<dataStore type='file'><format type='raw'/><source file='/d'/></dataStore>
<slices><slice type='storage' offset='0' size='512'/></slices>
<reservations managed='yes'/><cookies><cookie name='a'>b</cookie></cookies><ssl verify='no'/>
<readahead size='1'/><timeout seconds='1'/><snapshot name='s'/><config file='/c'/>
<identity user='u' keyfile='/k'/><knownHosts path='/h'/><host name='h'/><address type='pci'/>
<initiator><iqn name='i'/></initiator><auth username='u'/><reconnect delay='1'/>"""


def test_a_restored_disk_has_nothing_of_a_source_that_it_was_not_copied_with():
    kept = "<encryption format='luks'/><seclabel model='dac' relabel='no'/>"
    xml = f"""<domain><name>web</name><devices><disk type='file'>
      <source file='/i/a' index='1' fdgroup='g' startupPolicy='optional'>{FOREIGN}{kept}</source>
      <auth username='u'/><mirror type='file'/><backingStore/><serial>7</serial>
      <target dev='vda'/></disk></devices></domain>"""
    disk = etree.fromstring(restored_xml(xml, IMAGES).xml).find("devices/disk")
    assert [child.tag for child in disk] == ["source", "serial", "target"]
    source = disk.find("source")
    assert dict(source.attrib) == {"file": "/r/web & co.qcow2", "startupPolicy": "optional"}
    assert [child.tag for child in source] == ["encryption", "seclabel"]


@pytest.mark.parametrize(("image_format", "kept"), [("qcow2", True), ("raw", False)])
def test_what_only_qcow2_takes_goes_where_the_image_is_none(image_format, kept):
    """libvirt would refuse the domain."""
    xml = """<domain><name>web</name><devices><disk type='file'>
      <driver name='qemu' type='{}' cache='none' discard_no_unref='on'><metadata_cache>
      <max_size unit='bytes'>1</max_size></metadata_cache><statistics/></driver>
      <source file='/i/a'/><target dev='vda'/></disk></devices></domain>"""
    for was in ("qcow2", "raw"):
        restored = restored_xml(xml.format(was), IMAGES, formats={"vda": image_format})
        driver = etree.fromstring(restored.xml).find("devices/disk/driver")
        assert (driver.find("metadata_cache") is not None) == kept
        assert ("discard_no_unref" in driver.attrib) == kept
        assert driver.get("cache") == "none"
        assert driver.find("statistics") is not None


ENCRYPTED_CHAIN = """<domain><name>web</name><devices><disk type='file'>
  <driver name='qemu' type='qcow2'/><source file='/i/top'/>
  <backingStore type='block' index='2'><format type='qcow2'/>
    <source dev='/dev/middle' index='2'><reservations managed='yes'/></source>
    <backingStore type='file' index='3'><format type='raw'/>
      <source file='/i/base'><encryption format='luks'><secret uuid='u'/></encryption></source>
      <backingStore/></backingStore></backingStore>
  <target dev='vda'/></disk></devices></domain>"""


def test_a_chain_with_an_encrypted_image_is_kept_on_the_restored_ones():
    below = [Path("/r/middle"), Path("/r/base")]
    root = etree.fromstring(restored_xml(ENCRYPTED_CHAIN, IMAGES, below={"vda": below}).xml)
    middle = root.find("devices/disk/backingStore")
    base = middle.find("backingStore")
    assert [dict(each.attrib) for each in (middle, base)] == [{"type": "file"}, {"type": "file"}]
    assert dict(middle.find("source").attrib) == {"file": "/r/middle"}
    assert len(middle.find("source")) == 0
    assert dict(base.find("source").attrib) == {"file": "/r/base"}
    assert base.find("source/encryption/secret").get("uuid") == "u"
    assert [each.find("format").get("type") for each in (middle, base)] == ["qcow2", "raw"]
    assert dict(base.find("backingStore").attrib) == {}


def test_a_chain_without_one_is_left_to_the_headers():
    xml = ENCRYPTED_CHAIN.replace("encryption", "ssl")
    below = {"vda": [Path("/r/middle"), Path("/r/base")]}
    assert "backingStore" not in restored_xml(xml, IMAGES, below=below).xml
