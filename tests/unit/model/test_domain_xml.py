from pathlib import Path

import pytest
from lxml import etree

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model import domain_xml
from virtbackup_async.model.disk_xml import Reader
from virtbackup_async.model.domain import BackingImage, Disk, SkippedDisk, ToldChain, Volume


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
        (disk("x", driver="vmdk"), "format vmdk: only `method: pull`"),
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
    served, left = domain_xml.disks(PULLED, Reader.PULL_JOB)
    assert [(disk.dev, str(disk.path), disk.kind) for disk in served] == [
        ("vda", "/i/a.qcow2", "file"),
        ("vdb", "/dev/vg/lv", "block"),
        ("vdc", "rbd:pool/img", "network"),
        ("vdd", "p:v", "volume"),
    ]
    assert [disk.dev for disk in left] == ["hda"]


def test_what_qemu_nbd_serves_is_on_a_path():
    volumes = {"vdd": Volume(Path("/dev/vg/v"), "block")}
    served, left = domain_xml.disks(PULLED, Reader.QEMU_NBD, volumes)
    assert [(disk.dev, str(disk.path), disk.kind) for disk in served] == [
        ("vda", "/i/a.qcow2", "file"),
        ("vdb", "/dev/vg/lv", "block"),
        ("vdd", "/dev/vg/v", "block"),
    ]
    assert [disk.dev for disk in left] == ["vdc", "hda"]
    assert "while the domain runs" in left[0].reason


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (Volume(None, reason="pool p is not active"), "pool p is not active"),
        (Volume(Path("pool/img"), "network"), "a network disk"),
    ],
)
def test_a_volume_that_is_on_no_path_is_left_out(volume, said):
    (_, left) = domain_xml.disks(PULLED, Reader.QEMU_NBD, {"vdd": volume})
    assert said in {disk.dev: disk.reason for disk in left}["vdd"]


def test_volumes_of_pools():
    assert domain_xml.pool_volumes(PULLED) == {"vdd": ("p", "v")}


@pytest.mark.parametrize(
    ("source", "driver", "said"),
    [
        ("<slices><slice type='storage' offset='0' size='512'/></slices>", "raw", "a part of"),
        ("", "vdi", "format vdi"),
    ],
)
def test_what_only_qemu_can_read_is_left_to_it(source, driver, said):
    element = disk("vdx", driver=driver).replace("/><target", f">{source}</source><target")
    for reader in (Reader.COPY, Reader.QEMU_NBD):
        ((), (left,)) = domain_xml.disks(domain(element), reader)
        assert said in left.reason
        assert "while the domain runs" in left.reason
    ((taken,), ()) = domain_xml.disks(domain(element), Reader.PULL_JOB)
    assert taken.format == driver


def test_an_image_from_a_descriptor_is_left_to_qemu():
    element = disk("vdx", source="file='/i/x' fdgroup='g'")
    ((), (left,)) = domain_xml.disks(domain(element))
    assert "descriptor" in left.reason


def test_data_in_another_file_are_pulled():
    store = "<dataStore type='file'><format type='raw'/><source file='/d'/></dataStore>"
    element = disk("vdx").replace("/><target", f">{store}</source><target")
    ((), (left,)) = domain_xml.disks(domain(element))
    assert "another file: only `method: pull` takes it" in left.reason
    ((taken,), ()) = domain_xml.disks(domain(element), Reader.QEMU_NBD)
    assert taken.path == Path("/i/vdx")


ENCRYPTION = "<encryption format='luks'><secret type='passphrase' uuid='u'/></encryption>"


def test_an_encrypted_disk_says_so():
    inside = disk("vda").replace("/><target", f">{ENCRYPTION}</source><target")
    for element, encrypted in (
        (inside, True),
        (disk("vda", ENCRYPTION), True),
        (disk("vda"), False),
    ):
        ((taken,), ()) = domain_xml.disks(domain(element))
        assert taken.encrypted == encrypted


STORE = "<dataStore type='file'><format type='raw'/><source file='/d'/></dataStore>"
NOT_A_FILE = {
    "<dataStore type='network'><source protocol='nbd'/></dataStore>": "on network storage",
    "<dataStore type='file'><format type='qcow2'/><source file='/d'/></dataStore>": "is not raw",
    "<dataStore type='file'><source file='/d'><slices/></source></dataStore>": "a part of /d",
    "<dataStore type='file'><source file='/d'><encryption/></source></dataStore>": "encrypted",
    "<dataStore type='file'><source file='/d' fdgroup='g'/></dataStore>": "from a descriptor",
}
NOT_BELOW = {
    "type='network'><source protocol='nbd' name='x'/>": "an image on network storage",
    "type='nvme'><source type='pci' namespace='1'/>": "an image on nvme storage",
    "type='volume'><source pool='p' volume='v'/>": "an image on volume storage",
    "type='file'><source file='/y'><slices/></source>": "a part of /y",
    "type='file'><source file='/y' fdgroup='g'/>": "an image from a descriptor",
    **{f"type='file'><source file='/y'>{s}</source>": why for s, why in NOT_A_FILE.items()},
}
ONLY_PULLED = "only `method: pull` takes it, while the domain runs"


@pytest.mark.parametrize(
    ("below", "told"),
    [
        ("", ToldChain()),
        ("<backingStore/>", ToldChain(is_whole=True)),
        (
            """<backingStore type='block'><format type='qcow2'/><source dev='/dev/x'/>
            <backingStore type='file'><format type='raw'/><source file='/y'/><backingStore/>
            </backingStore></backingStore>""",
            ToldChain(
                (BackingImage(Path("/dev/x"), "qcow2"), BackingImage(Path("/y"), "raw")),
                is_whole=True,
            ),
        ),
        (
            "<backingStore type='file'><source file='/y'/></backingStore>",
            ToldChain((BackingImage(Path("/y"), "raw"),)),
        ),
        (
            """<backingStore type='file'><format type='raw'/>
            <source file='/y'><encryption/></source><backingStore/></backingStore>""",
            ToldChain((BackingImage(Path("/y"), "luks"),), is_whole=True),
        ),
        (
            f"""<backingStore type='file'><format type='qcow2'/>
            <source file='/y'>{STORE}</source></backingStore>""",
            ToldChain((BackingImage(Path("/y"), "qcow2", Path("/d")),)),
        ),
    ],
)
def test_what_the_xml_says_of_the_images_below(below, told):
    ((taken,), ()) = domain_xml.disks(domain(disk("vda", below)))
    assert taken.told == told


@pytest.mark.parametrize("below", NOT_BELOW)
def test_what_below_a_disk_is_no_file_is_the_reason(below):
    good = "<backingStore type='file'><source file='/g'/>"
    chain = f"{good}<backingStore {below}<backingStore/></backingStore></backingStore>"
    ((taken,), ()) = domain_xml.disks(domain(disk("vda", chain)))
    assert taken.told.images == (BackingImage(Path("/g"), "raw"),)
    assert not taken.told.is_whole
    assert NOT_BELOW[below] in taken.told.reason
    assert ONLY_PULLED in taken.told.reason


@pytest.mark.parametrize("store", NOT_A_FILE)
def test_data_that_qemu_nbd_does_not_find_are_left_to_qemu(store):
    element = disk("vda", source="file='/i/x'").replace("/><target", f">{store}</source><target")
    ((), (left,)) = domain_xml.disks(domain(element), Reader.QEMU_NBD)
    assert NOT_A_FILE[store] in left.reason
    assert ONLY_PULLED in left.reason
    assert len(domain_xml.disks(domain(element), Reader.PULL_JOB)[0]) == 1


def test_what_the_xml_says_of_the_data():
    element = disk("vda", source="file='/i/x'").replace("/><target", f">{STORE}</source><target")
    ((taken,), ()) = domain_xml.disks(domain(element), Reader.QEMU_NBD)
    assert taken.told == ToldChain(data_file=Path("/d"))


def test_a_disk_on_an_encrypted_image_says_so():
    below = "<backingStore type='file'><source file='/y'><encryption/></source></backingStore>"
    ((taken,), ()) = domain_xml.disks(domain(disk("vda", below)))
    assert taken.encrypted


def test_a_pulled_disk_has_nothing_of_the_image_that_it_was_read_through():
    store = "<dataStore type='file'><format type='raw'/><source file='/d'/></dataStore>"
    slices = "<slices><slice type='storage' offset='0' size='512'/></slices>"
    inside = f"{ENCRYPTION}{store}{slices}<seclabel model='dac' relabel='no'/>"
    element = disk("vda", "<mirror type='file'/>").replace(
        "/><target", f">{inside}</source><target"
    )
    raw = etree.fromstring(domain_xml.with_raw_disks(domain(element), {"vda"}))
    assert [child.tag for child in raw.find("devices/disk/source")] == ["seclabel"]
    assert raw.find("devices/disk/mirror") is None
    untouched = etree.fromstring(domain_xml.with_raw_disks(domain(element), {"vdb"}))
    assert len(untouched.find("devices/disk/source")) == 4


def test_a_disk_encrypted_in_the_old_way_is_raw_when_it_is_pulled():
    raw = domain_xml.with_raw_disks(domain(disk("vda", ENCRYPTION)), {"vda"})
    assert "encryption" not in raw


def test_pulled_disks_are_raw_with_nothing_below():
    raw = domain_xml.with_raw_disks(PULLED, {"vda", "vdb"})
    assert "type='qcow2'" not in raw.replace('"', "'")
    assert "backingStore" not in raw
    assert domain_xml.disk_sources(raw) == domain_xml.disk_sources(PULLED)
