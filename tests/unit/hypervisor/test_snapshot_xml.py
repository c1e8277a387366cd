from pathlib import Path

from lxml import etree

from virtbackup_async.hypervisor.snapshot_xml import snapshot_xml


def test_every_disk_is_named_wanted_or_not():
    overlays = {"vda": Path("/i/a.vbk-1"), "vdb": Path("/i/<&'\".vbk-1")}
    root = etree.fromstring(snapshot_xml("b<1>", overlays, ["hdc", "vdc"]))
    disks = {disk.get("name"): disk for disk in root.iterfind("disks/disk")}
    assert root.findtext("name") == "b<1>"
    assert {dev: disk.get("snapshot") for dev, disk in disks.items()} == {
        "vda": "external",
        "vdb": "external",
        "hdc": "no",
        "vdc": "no",
    }
    assert disks["vdb"].find("source").get("file") == "/i/<&'\".vbk-1"
    assert disks["vda"].find("driver").get("type") == "qcow2"
