"""Checkpoints that libvirt, or QEMU, has lost a part of; libvirt's domain is a fake."""

import libvirt
import pytest

from virtbackup_async.errors import HypervisorError
from virtbackup_async.hypervisor.checkpoints import delete, redefine
from virtbackup_async.hypervisor.job_xml import checkpoint_xml
from virtbackup_async.model.domain_xml import parse

VALIDATED = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
METADATA_ONLY = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY


def said(code):
    error = libvirt.libvirtError("call failed")
    error.err = (code, libvirt.VIR_FROM_QEMU, "words", 2, None, None, None, 0, 0)
    return error


class Checkpoint:
    def __init__(self, domain, name, devs, parent=None):
        self.domain, self.name, self.devs, self.parent = domain, name, devs, parent

    def getName(self):  # noqa: N802 -- libvirt's name
        return self.name

    def getXMLDesc(self, _flags):  # noqa: N802 -- libvirt's name
        parent = f"<parent><name>{self.parent}</name></parent>" if self.parent else ""
        disks = "".join(f"<disk name='{dev}' checkpoint='bitmap'/>" for dev in self.devs)
        return f"<domaincheckpoint>{parent}<disks>{disks}</disks></domaincheckpoint>"

    def delete(self, flags):
        if flags != METADATA_ONLY:
            if not set(self.devs) <= self.domain.bitmaps:
                raise said(self.domain.missing_code)
            self.domain.bitmaps -= set(self.devs)
        del self.domain.known[self.name]


class Domain:
    """QEMU has ``bitmaps`` of the one checkpoint; libvirt knows what is in ``known``."""

    missing_code = libvirt.VIR_ERR_INTERNAL_ERROR

    def __init__(self, *devs, bitmaps=(), active=True, job=libvirt.VIR_DOMAIN_JOB_NONE):
        self.devs, self.bitmaps, self.active, self.job = devs, set(bitmaps), active, job
        self.known = {}
        self.described = []

    def knows(self, name, *devs, parent=None):
        self.known[name] = Checkpoint(self, name, devs, parent)
        return self

    def name(self):
        return "web"

    def isActive(self):  # noqa: N802 -- libvirt's name
        return self.active

    def jobInfo(self):  # noqa: N802 -- libvirt's name
        return [self.job]

    def XMLDesc(self, flags):  # noqa: N802 -- libvirt's name
        assert flags == 0, "with other flags the XML has secrets, or is not the running domain's"
        disks = "".join(f"<disk><target dev='{dev}'/></disk>" for dev in self.devs)
        return f"<domain><devices>{disks}</devices></domain>"

    def listAllCheckpoints(self, _flags):  # noqa: N802 -- libvirt's name
        return [*self.known.values()]

    def checkpointLookupByName(self, name):  # noqa: N802 -- libvirt's name
        return self.known[name]

    def checkpointCreateXML(self, xml, flags):  # noqa: N802 -- libvirt's name
        root = parse(xml)
        self.described.append(root)
        devs = [disk.get("name") for disk in root.iterfind("disks/disk[@checkpoint='bitmap']")]
        if flags & VALIDATED and not set(devs) <= self.bitmaps:
            raise said(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT)
        self.knows(root.findtext("name"), *devs)


def test_a_new_checkpoint_names_every_disk():
    root = parse(checkpoint_xml("c", ["vda"], ["vdb"]))
    assert {disk.get("name"): disk.get("checkpoint") for disk in root.iterfind("disks/disk")} == {
        "vda": "bitmap", "vdb": "no",
    }  # fmt: skip


def test_a_checkpoint_that_is_whole_is_redefined_at_once():
    domain = Domain("vda", "vdb", "vdc", bitmaps=["vda", "vdb"]).knows("c", "vda", parent="older")
    assert redefine(domain, "c", 1772331300, ["vda", "vdb", "gone"]) == {"vda", "vdb"}
    (root,) = domain.described
    assert root.findtext("creationTime") == "1772331300"
    assert root.findtext("parent/name") == "older"
    assert root.find("domain") is not None
    assert root.find("disks/disk[@name='vdc']").get("checkpoint") == "no"
    assert domain.known["c"].devs == ("vda", "vdb")


def test_each_disk_that_still_has_its_bitmap_is_found():
    domain = Domain("vda", "vdb", bitmaps=["vdb"])
    assert redefine(domain, "c", 0, ["vda", "vdb"]) == {"vdb"}
    assert domain.known["c"].devs == ("vdb",)


def test_the_disks_that_still_have_their_bitmaps_are_described_together():
    domain = Domain("vda", "vdb", "vdc", bitmaps=["vdb", "vdc"])
    assert redefine(domain, "c", 0, ["vda", "vdb", "vdc"]) == {"vdb", "vdc"}
    assert domain.known["c"].devs == ("vdb", "vdc")


def test_without_a_bitmap_nothing_is_left_of_the_checkpoint():
    assert redefine(Domain("vda"), "c", 0, ["vda"]) == frozenset()
    assert redefine(Domain("vda"), "c", 0, ["gone"]) == frozenset()


def test_another_error_is_not_taken_for_a_lost_bitmap():
    class Broken(Domain):
        def checkpointCreateXML(self, xml, flags):  # noqa: N802 -- libvirt's name
            raise said(libvirt.VIR_ERR_OPERATION_FAILED)

    with pytest.raises(libvirt.libvirtError):
        redefine(Broken("vda"), "c", 0, ["vda"])


def test_a_checkpoint_that_is_whole_is_deleted_with_its_bitmaps():
    domain = Domain("vda", "vdb", bitmaps=["vda", "vdb"]).knows("c", "vda", "vdb")
    assert delete(domain, "c", ["vda"])
    assert (domain.known, domain.bitmaps) == ({}, set())
    assert domain.described == []


@pytest.mark.parametrize("is_known", [False, True])
def test_bitmaps_are_deleted_one_by_one_where_one_is_missing(is_known):
    """libvirt deletes none then, nor where it has lost the description."""
    domain = Domain("vda", "vdb", bitmaps=["vdb"])
    if is_known:
        domain.knows("c", "vda", "vdb")
    assert delete(domain, "c", ["vda", "vdb", "gone"])
    assert (domain.known, domain.bitmaps) == ({}, set())


def test_a_checkpoint_without_any_bitmap_is_forgotten():
    domain = Domain("vda", "vdb").knows("c", "vda", "vdb")
    assert delete(domain, "c", ["vda", "vdb"])
    assert domain.known == {}


def test_a_disk_that_only_libvirt_knows_of_loses_its_bitmap_too():
    domain = Domain("vda", "vdb", bitmaps=["vdb"]).knows("c", "vda", "vdb")
    assert delete(domain, "c", [])
    assert domain.bitmaps == set()


def test_another_error_is_not_taken_for_a_missing_bitmap():
    domain = Domain("vda").knows("c", "vda")
    domain.missing_code = libvirt.VIR_ERR_OPERATION_FAILED
    with pytest.raises(libvirt.libvirtError):
        delete(domain, "c", [])


def test_without_qemu_libvirt_only_forgets():
    domain = Domain("vda", bitmaps=["vda"], active=False).knows("c", "vda")
    assert not delete(domain, "c", ["vda"])
    assert (domain.known, domain.bitmaps) == ({}, {"vda"})
    assert not delete(domain, "c", ["vda"]), "what is gone already is fine"


@pytest.mark.parametrize("act", [lambda d: delete(d, "c", []), lambda d: redefine(d, "c", 0, [])])
def test_no_checkpoint_is_touched_while_a_job_runs(act):
    domain = Domain("vda", job=libvirt.VIR_DOMAIN_JOB_UNBOUNDED).knows("c", "vda")
    with pytest.raises(HypervisorError, match=r"web: checkpoint c is left alone.*domjobabort"):
        act(domain)
    assert "c" in domain.known
