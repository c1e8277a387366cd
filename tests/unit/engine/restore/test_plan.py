"""engine/restore/plan.py: which files a restore writes, and what they are called."""

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from virtbackup_async.engine.restore.plan import (
    AS_THEY_WERE,
    Formats,
    encrypted_in,
    plan_restore,
    xml_of,
)
from virtbackup_async.errors import ConfigError, DefinitionError, NotFoundError
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Original,
    Packager,
    StateRecord,
)
from virtbackup_async.model.qcow2_options import Qcow2Options

DIGEST = "blake3-256k:" + "0" * 64
XML = """<domain><devices>
<disk type='file'><driver type='qcow2'/><source file='/images/one.qcow2'/><target dev='vda'/></disk>
<disk type='file'><driver type='raw'/><source file='/images/two.img'/><target dev='vdb'/></disk>
</devices></domain>"""
ENCRYPTED = XML.replace(
    "<source file='/images/two.img'/>",
    "<source file='/images/two.img'><encryption format='luks'/></source>",
)


@dataclass
class Disk:
    """A disk of a backup, as short as it can be written."""

    source: str
    format: str = "raw"
    below: tuple[str, ...] = ()
    original: Original | None = None
    digest: str = DIGEST


def image(file, source, format="raw", digest=DIGEST, data_bytes=10):  # noqa: A002 -- its name
    return ImageRecord(file, source, format, 100, data_bytes, 5, digest)


def backup(disks, *, method=None, xml=XML, state=(), name="web"):
    records = {
        dev: DiskRecord(
            image(f"b_{dev}", disk.source, disk.format, disk.digest),
            tuple(
                image(f"b_{dev}.{n}", below, disk.format) for n, below in enumerate(disk.below, 1)
            ),
            original=disk.original,
        )
        for dev, disk in disks.items()
    }
    return Definition(
        name="b", domain_id=1, domain_name=name, domain_xml=xml,
        disks={dev: f"b_{dev}" for dev in disks}, version="1.0.0", date=1,
        packager=Packager("tar"), records=records, method=method, state_files=state,
    )  # fmt: skip


def of_virt_backup(disks, xml=XML):
    return replace(backup({}, xml=xml), disks=disks)


def names(definition, *arguments):
    return plan_restore(definition, *arguments).names


def test_files_get_the_names_of_their_images_and_the_domains_xml_its_own():
    plan = plan_restore(
        backup({"vda": Disk("/i/one.qcow2", "qcow2", ("/i/base.raw",)), "vdb": Disk("/j/two")})
    )
    assert plan.names == ("one.qcow2", "base.raw", "two", "web.xml")
    assert plan.devs == ("vda", "vdb")
    assert [one.format for one in plan.images] == ["qcow2", "qcow2", "raw"]
    assert plan.data_bytes == 30
    assert [disk.data_bytes for disk in plan.disks] == [20, 10]
    assert plan.is_verifiable


@pytest.mark.parametrize("digest", ["", "sha256:00"])
def test_one_image_without_a_digest_that_can_be_compared_leaves_the_rest(digest):
    plan = plan_restore(backup({"vda": Disk("/i/one"), "vdb": Disk("/i/two", digest=digest)}))
    assert [one.expected_digest for one in plan.images] == [DIGEST, None]
    assert not plan.is_verifiable


def test_backups_of_virt_backup_have_the_names_in_the_xml():
    found = plan_restore(of_virt_backup({"vda": "b_vda.qcow2", "vdb": "b_vdb.img"}))
    assert found.names == ("one.qcow2", "two.img", "web.xml")
    assert (found.data_bytes, found.disks[0].data_bytes, found.is_verifiable) == (0, 0, False)
    assert [one.format for one in found.images] == [None, None]
    lost = of_virt_backup({"vda": "b_vda.qcow2"}, xml="<domain")
    assert names(lost) == ("b_vda.qcow2", "web.xml")
    with pytest.raises(ConfigError, match=r"nobody recorded what b_vda\.qcow2 is"):
        names(lost, (), Formats("raw"))


def test_the_names_of_a_disk_are_the_same_without_the_others():
    both = backup({"vda": Disk("/i/disk"), "vdb": Disk("/j/disk")}, state=STATE)
    assert names(both)[:2] == ("disk", "vdb_disk")
    assert names(both, ["vdb"]) == ("vdb_disk", "web.xml")
    assert names(both, ["vda"]) == ("disk", "web.xml"), "the state is for the whole domain"


@pytest.mark.parametrize("source", ["", "/", "/i/..", "..", "/i/.hidden", "/i/a\nb"])
def test_a_name_that_is_not_plain_gives_way_to_the_one_in_the_package(source):
    assert names(backup({"vda": Disk(source)})) == ("b_vda", "web.xml")


def test_no_two_files_have_one_name():
    disks = {"vda": Disk("/i/web.xml"), "vdb": Disk("/i/vda_web.xml"), "vdc": Disk("/i/web.xml")}
    assert names(backup(disks)) == ("vda_web.xml", "vdb_vda_web.xml", "vdc_web.xml", "web.xml")
    taken = backup({"vda": Disk("/i/b_vdb"), "vdb": Disk("..")})
    with pytest.raises(DefinitionError, match="no usable file name for vdb: 'b_vdb'"):
        plan_restore(taken)
    outside = backup({"vda": Disk("..")})
    record = outside.records["vda"]
    records = {"vda": replace(record, image=replace(record.image, file="../b"))}
    with pytest.raises(DefinitionError, match="no usable file name for vda"):
        plan_restore(replace(outside, records=records))


def test_a_long_name_of_a_domain_leaves_room_for_the_suffix():
    plan = plan_restore(backup({"vda": Disk("/i/one")}, name="d" * 300))
    assert plan.xml_name.endswith(".xml")
    assert len(plan.xml_name) == 255


def test_a_disk_that_is_not_there_and_a_backup_without_any_are_refused():
    with pytest.raises(NotFoundError, match="no disk vdz in backup b") as raised:
        plan_restore(backup({"vda": Disk("/i/one"), "vdb": Disk("/i/two")}), ["vda", "vdz"])
    assert "Its disks are: vda, vdb." in str(raised.value)
    with pytest.raises(DefinitionError, match="holds no disk"):
        plan_restore(backup({}))
    with pytest.raises(NotFoundError) as raised:
        plan_restore(backup({}), ["vda"])
    assert "none" in str(raised.value)


STATE = (
    StateRecord("nvram", image("b_nvram", "/n/web_VARS.fd"), "libvirt-qemu"),
    StateRecord("tpm", image("b_tpm", "/t/tpm2-00.permall")),
    StateRecord("tpm", image("b_odd", "..")),
)


def test_state_has_names_that_say_its_kind_except_uefi_variables():
    plan = plan_restore(backup({"vda": Disk("/i/one")}, state=STATE))
    assert [(one.image.name, one.source_name, one.owner) for one in plan.state] == [
        ("web_VARS.fd", "web_VARS.fd", "libvirt-qemu"),
        ("tpm-tpm2-00.permall", "tpm2-00.permall", None),
        ("tpm-b_odd", "b_odd", None),
    ]
    assert plan.data_bytes == 40


def test_no_two_files_of_the_state_have_one_name():
    twice = [StateRecord("tpm", image(f"b_tpm{n}", f"/t{n}/tpm2-00.permall")) for n in range(3)]
    plan = plan_restore(backup({"vda": Disk("/i/one")}, state=tuple(twice)))
    assert [one.image.name for one in plan.state] == [
        "tpm-tpm2-00.permall",
        "tpm_tpm-tpm2-00.permall",
        "b_tpm2",
    ]


@pytest.mark.parametrize(
    ("method", "source", "wrapped", "name"),
    [
        ("pull", "/i/one.qcow2", False, "one.raw"),
        ("pull", "/i/one.img", False, "one.img"),
        ("pull", "/i/one.raw", False, "one.raw"),
        ("pull", "/dev/vg/one", False, "one.raw"),
        ("pull", "/i/one.qcow2", True, "one.qcow2"),
        ("pull", "/i/one.img", True, "one.qcow2"),
        ("snapshot", "/i/one.qcow2", False, "one.qcow2"),
        ("snapshot", "/dev/vg/one", False, "one"),
        ("snapshot", "/i/one.raw", True, "one.qcow2"),
    ],
)
def test_the_suffix_is_that_of_the_format(method, source, wrapped, name):
    formats = Formats("qcow2" if wrapped else None)
    plan = plan_restore(backup({"vda": Disk(source)}, method=method), (), formats)
    (restored,) = plan.images
    assert (restored.name, restored.wrapped) == (name, wrapped)
    assert restored.format == ("qcow2" if wrapped else "raw")


def test_an_image_that_was_copied_as_it_is_keeps_its_name_among_pulled_ones():
    disk = Disk("/i/one.qcow2", "qcow2", ("/i/base",))
    assert names(backup({"vda": disk}, method="pull"))[:2] == ("one.qcow2", "base")


ORIGINAL = Original("qcow2", Qcow2Options())


@pytest.mark.parametrize(
    ("method", "original", "formats", "wrapped"),
    [
        ("pull", ORIGINAL, AS_THEY_WERE, True),
        ("pull", ORIGINAL, Formats(), False),
        ("pull", ORIGINAL, Formats("raw", as_they_were=True), False),
        ("pull", ORIGINAL, Formats("qcow2"), True),
        ("pull", Original("raw"), AS_THEY_WERE, False),
        ("pull", None, AS_THEY_WERE, False),
        ("snapshot", ORIGINAL, AS_THEY_WERE, False),
        ("snapshot", None, Formats("qcow2"), True),
    ],
)
def test_a_raw_image_becomes_qcow2_if_that_is_wanted_or_it_was_one(
    method, original, formats, wrapped
):
    definition = backup({"vda": Disk("/i/one", original=original)}, method=method)
    (restored,) = plan_restore(definition, (), formats).images
    assert restored.wrapped == wrapped


def test_a_format_that_cannot_be_made_is_refused():
    qcow2 = backup({"vda": Disk("/i/one", "qcow2")})
    (kept,) = plan_restore(qcow2, (), Formats("qcow2")).images
    assert not kept.wrapped
    with pytest.raises(ConfigError, match="is qcow2 in the backup"):
        plan_restore(qcow2, (), Formats("raw"))
    luks = backup({"vdb": Disk("/i/two.img")}, xml=ENCRYPTED)
    with pytest.raises(ConfigError, match="encrypted as a whole"):
        plan_restore(luks, (), Formats("qcow2"))
    (kept,) = plan_restore(luks, (), Formats("raw")).images
    assert (kept.format, kept.wrapped) == ("luks", False)
    with pytest.raises(ConfigError, match="is vmdk in the backup, and does not become qcow2"):
        plan_restore(backup({"vda": Disk("/i/one", "vmdk")}), (), Formats("qcow2"))


def test_the_layout_is_the_recorded_one_if_it_can_be_written():
    for layout, expected in (
        (GOOD, GOOD),
        (replace(GOOD, cluster_bits=40), Qcow2Options()),
        (None, Qcow2Options()),
    ):
        disk = Disk("/i/one", original=Original("qcow2", layout))
        (restored,) = plan_restore(backup({"vda": disk}, method="pull"), (), AS_THEY_WERE).images
        assert restored.layout == expected


GOOD = Qcow2Options(cluster_bits=20)


def test_the_xml_of_a_pulled_disk_says_raw_and_of_others_what_they_are():
    disks = {"vda": Disk("/images/one.qcow2"), "vdb": Disk("/images/two.img", "qcow2")}
    assert "type='qcow2'" in xml_of(backup(disks, method="snapshot"))
    assert "qcow2'/><source" not in xml_of(backup(disks, method="pull"))


def test_what_is_encrypted_is_in_the_xml_and_none_if_that_is_lost():
    assert encrypted_in(backup({"vdb": Disk("/i/two")}, xml=ENCRYPTED)) == {"vdb"}
    assert encrypted_in(backup({"vdb": Disk("/i/two")})) == frozenset()
    assert encrypted_in(backup({"vdb": Disk("/i/two")}, xml="<")) == frozenset()
