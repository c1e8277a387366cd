"""The XML of a snapshot and of a pull job, and whose a running job is."""

from pathlib import Path

from lxml import etree

from virtbackup_async.hypervisor.job_xml import backup_xml, snapshot_xml, socket_of
from virtbackup_async.model.domain_xml import parse
from virtbackup_async.model.names import is_scratch
from virtbackup_async.model.pull import PullJob, is_socket_of_ours, socket_name
from virtbackup_async.model.tracking import Tracking

JOB = PullJob(Path("/run/<&>/vbk-0a0b0c0d.sock"), {"vda": Path("/s/a'b.vbk-0a0b0c0d.scratch")})


def test_each_disk_is_served_under_its_name_and_no_other():
    root = parse(backup_xml(JOB, Tracking(), ["vdb"]))
    assert root.get("mode") == "pull"
    served, left = root.findall("disks/disk")
    assert (served.get("name"), served.get("exportname")) == ("vda", "vda")
    assert served.find("scratch").get("file") == str(JOB.scratch["vda"])
    assert (left.get("name"), left.get("backup")) == ("vdb", "no")


def test_a_job_is_known_by_its_socket():
    assert socket_of(backup_xml(JOB, Tracking(), [])) == JOB.socket
    assert socket_of("<domainbackup mode='push'/>") is None


def test_only_our_names_are_ours():
    assert is_socket_of_ours(Path("/run") / socket_name("0a0b0c0d"))
    assert not is_socket_of_ours(Path("/run/libvirt-sock"))
    assert not is_socket_of_ours(Path("vbk-0a0b0c0d.sock"))
    assert is_scratch(JOB.scratch["vda"])
    for other in ("/i/a.qcow2", "/i/a.vbk-0a0b0c0d", "a.vbk-0a0b0c0d.scratch", "/i/x.scratch"):
        assert not is_scratch(Path(other))


def test_a_snapshot_names_every_disk_wanted_or_not():
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
