"""Every element and attribute of a disk in libvirt's schema: does it change which bytes are meant?

What does is never passed over by who opens the images himself: it is understood, or the reason why
the disk is left out. What does not changes nothing. The table of docs/reference/disks.md is held
against the code. A name that nobody has thought of yet fails the test.
"""

import re
from enum import Enum, auto
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from lxml import etree

from libvirt_schema import places
from virtbackup_async.model import domain_xml
from virtbackup_async.model.disk_xml import Reader
from virtbackup_async.model.domain import Disk
from virtbackup_async.model.restored_xml import restored_xml

# Debian's libvirt 12.8, walked in the same way.
NEWER = Path(__file__).with_name("libvirt-12.8-disk.txt").read_text().split()
DOCS = (Path(__file__).parents[3] / "docs/reference/disks.md").read_text()


class Effect(Enum):
    """What a name does to the bytes of a disk."""

    BYTES = auto()
    """It changes which bytes are meant."""
    KIND = auto()
    """It says which bytes are meant, of a type of disk that is taken or left out as a whole."""
    JOB = auto()
    """A block job works on the disk: no method touches it."""
    OTHERS = auto()
    """The bytes are not the domain's own: it is left out by every method."""
    ACCESS = auto()
    """How, how fast or by whom they are reached; whether the host is content with it."""
    DEVICE = auto()
    """What the guest sees of the device, or what libvirt calls it."""


BYTES, KIND, JOB, OTHERS = Effect.BYTES, Effect.KIND, Effect.JOB, Effect.OTHERS
ACCESS, DEVICE = Effect.ACCESS, Effect.DEVICE

# By the place below the disk, below an image of its chain, and below a data file, all the same.
EFFECTS = {
    "@type": KIND,
    "@device": KIND,
    "@model": DEVICE,
    "@rawio": ACCESS,
    "@sgio": ACCESS,
    "@snapshot": ACCESS,  # each snapshot of ours names each disk
    "@index": DEVICE,
    "source": KIND,
    "source@file": BYTES,
    "source@dev": BYTES,
    "source@dir": KIND,
    "source@fdgroup": BYTES,
    "source@pool": KIND,
    "source@volume": KIND,
    "source@mode": KIND,
    "source@protocol": KIND,
    "source@name": KIND,
    "source@query": KIND,
    "source@path": KIND,
    "source@type": KIND,
    "source@namespace": KIND,
    "source@managed": KIND,
    "source/address*": KIND,
    "source/host*": KIND,
    "source/snapshot*": KIND,
    "source/config*": KIND,
    "source/initiator*": KIND,
    "source/slices*": BYTES,
    "source/encryption*": BYTES,
    "encryption*": BYTES,
    "dataStore": BYTES,
    "backingStore": BYTES,
    "format": BYTES,
    "format@type": BYTES,
    "format/metadata_cache*": ACCESS,
    "source@index": DEVICE,
    "source@startupPolicy": ACCESS,
    "source@tls": ACCESS,
    "source@tlsHostname": ACCESS,
    "source/auth*": ACCESS,
    "source/cookies*": ACCESS,
    "source/identity*": ACCESS,
    "source/knownHosts*": ACCESS,
    "source/privateData": ACCESS,
    "source/readahead*": ACCESS,
    "source/reconnect*": ACCESS,
    "source/reservations*": ACCESS,
    "source/seclabel*": ACCESS,
    "source/ssl*": ACCESS,
    "source/timeout*": ACCESS,
    "privateData": DEVICE,
    "auth*": ACCESS,
    "driver": BYTES,
    "driver@type": BYTES,
    "driver@name": ACCESS,
    "driver@cache": ACCESS,
    "driver@copy_on_read": ACCESS,  # what it copies up from below are the same bytes
    "driver@detect_zeroes": ACCESS,
    "driver@discard": ACCESS,
    "driver@discard_no_unref": ACCESS,
    "driver@error_policy": ACCESS,
    "driver@rerror_policy": ACCESS,
    "driver@io": ACCESS,
    "driver@iothread": ACCESS,
    "driver/iothreads*": ACCESS,
    "driver/metadata_cache*": ACCESS,
    "driver/statistics*": ACCESS,
    "driver@ats": DEVICE,
    "driver@event_idx": DEVICE,
    "driver@ioeventfd": DEVICE,
    "driver@iommu": DEVICE,
    "driver@packed": DEVICE,
    "driver@page_per_vq": DEVICE,
    "driver@queue_size": DEVICE,
    "driver@queues": DEVICE,
    "mirror*": JOB,
    "readonly": OTHERS,
    "shareable": OTHERS,
    "transient": OTHERS,
    "transient@shareBacking": OTHERS,
    "acpi*": DEVICE,
    "address*": DEVICE,
    "alias*": DEVICE,
    "backenddomain*": ACCESS,
    "blockio*": DEVICE,
    "boot*": DEVICE,
    "geometry*": DEVICE,
    "iotune*": ACCESS,
    "throttlefilters*": ACCESS,
    "product": DEVICE,
    "serial": DEVICE,
    "target*": DEVICE,
    "vendor": DEVICE,
    "wwn": DEVICE,
}

BASE = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='/i/a'/><backingStore type='file'><format type='qcow2'/><source file='/i/b'/>
<backingStore/></backingStore><target dev='vda'/></disk>"""
STORE = "<dataStore type='file'><format type='raw'/><source file='/i/d'/></dataStore>"
# Values with which a name means something else than the base does.
VALUES = {"type": "vdi", "startupPolicy": "optional"}


def found(schema=None):
    """All places below a disk."""
    prefix = "devices/disk"
    walked = places() if schema is None else places(schema)
    return sorted(
        place.removeprefix(prefix).removeprefix("/")
        for place in walked
        if place.startswith((f"{prefix}/", f"{prefix}@"))
    )


def name_of(place):
    """The place below the disk, the image below it, or the data file that it is a part of."""
    if place.startswith("mirror"):
        return place
    return re.sub(r"^(.*/)?(backingStore|source/dataStore)(?=[/@])/?", "", place).replace(
        "source/dataStore", "dataStore"
    )


def effect_of(place):
    """What it does; None where nobody knows."""
    return next((EFFECTS[known] for known in EFFECTS if fnmatchcase(name_of(place), known)), None)


EVERYWHERE = sorted({*found(), *NEWER})


def test_every_place_is_known():
    assert len(found()) > 400
    assert len(NEWER) >= len(found())
    assert [place for place in EVERYWHERE if effect_of(place) is None] == []


def test_no_place_is_known_twice_or_for_nothing():
    names = {name_of(place) for place in EVERYWHERE}
    for name in names:
        assert len([known for known in EFFECTS if fnmatchcase(name, known)]) == 1, name
    for known in EFFECTS:
        assert any(fnmatchcase(name, known) for name in names), known


def test_a_place_that_libvirt_does_not_have_is_not_known():
    assert effect_of("source/teleporter") is None
    assert effect_of("backingStore/source/dataStore/source@teleporter") is None


def with_place(place):
    """A disk of the base as it is, and with the place in it."""
    before = etree.fromstring(BASE)
    for source in before.iter("source"):
        if "dataStore" in place and ("backingStore/" in place) == (source.get("file") == "/i/b"):
            source.append(etree.fromstring(STORE))
    after = etree.fromstring(etree.tostring(before))
    path, _, attribute = place.partition("@")
    element = after
    for tag in filter(None, path.split("/")):
        child = element.find(tag)
        element = etree.SubElement(element, tag) if child is None else child
    if attribute:
        element.set(attribute, VALUES.get(attribute, "/other"))
    return before, after


def read_by(reader, *elements):
    """What a reader makes of a domain with these disks: by element a disk, or a reason."""
    read = []
    for element in elements:
        text = etree.tostring(element, encoding="unicode")
        taken, left = domain_xml.disks(f"<domain><devices>{text}</devices></domain>", reader)
        read.append(taken[0] if taken else left[0].reason)
    return read


# Where a name says nothing by itself, or the base has it already.
SAYS_MORE = {place for place in EVERYWHERE if place.endswith(("/source", "/format", "driver"))} | {
    "source", "backingStore", "source/dataStore", "backingStore/source/dataStore",
    "backingStore/backingStore",
}  # fmt: skip
ON_FILES = [
    place
    for place in EVERYWHERE
    if effect_of(place) is BYTES and place not in SAYS_MORE and not place.endswith("source@dev")
]


@pytest.mark.parametrize("reader", [Reader.COPY, Reader.QEMU_NBD])
def test_what_changes_the_bytes_is_never_passed_over(reader):
    passed_over = []
    for place in ON_FILES:
        before, after = read_by(reader, *with_place(place))
        if isinstance(before, str):
            assert "data are in another file" in before  # none of them is copied
        elif after == before:
            passed_over.append(place)
    assert len(ON_FILES) > 50
    assert passed_over == []


@pytest.mark.parametrize("reader", Reader)
def test_what_does_not_is_of_no_account(reader):
    without = [place for place in EVERYWHERE if effect_of(place) in {ACCESS, DEVICE}]
    without.remove("target@dev")  # the name by which the disk goes here
    counted = []
    for place in without:
        before, after = read_by(reader, *with_place(place))
        if after != before:
            counted.append(place)
    assert len(without) > 300
    assert counted == []


@pytest.mark.parametrize("place", [p for p in EVERYWHERE if effect_of(p) is OTHERS])
def test_what_is_not_the_domains_own_is_left_out_by_all(place):
    for reader in Reader:
        (_, after) = read_by(reader, *with_place(place))
        assert isinstance(after, str)


def test_a_disk_with_a_job_is_known_by_its_mirror():
    (_, after) = with_place("mirror")
    text = etree.tostring(after, encoding="unicode")
    xml = f"<domain><devices>{text}</devices></domain>"
    assert domain_xml.devs_with_block_job(xml) == {"vda"}


# What is true of a restored image besides its path.
KEPT = ("source@startupPolicy", "source/seclabel", "source/encryption")


def test_a_restored_disk_keeps_nothing_of_where_it_was():
    wrong = []
    for place in [place for place in EVERYWHERE if place.startswith("source")]:
        text = etree.tostring(with_place(place)[1], encoding="unicode")
        xml = f"<domain><name>web</name><devices>{text}</devices></domain>"
        root = etree.fromstring(restored_xml(xml, {"vda": Path("/r/a")}).xml)
        disk = root.find("devices/disk")
        assert (disk.get("type"), disk.find("source").get("file")) == ("file", "/r/a")
        path, _, attribute = place.partition("@")
        there = disk.find(path)
        is_kept = there is not None and (not attribute or attribute in there.attrib)
        if is_kept != (place in {"source", "source@file"} or place.startswith(KEPT)):
            wrong.append(place)
    assert wrong == []


def row(inside="", below="", *, driver="qcow2", more=""):
    chain = f"<backingStore type='file'><format type='raw'/>{below}</backingStore>" if below else ""
    return (
        f"<disk type='file'><driver type='{driver}'/><source file='/i/a'>{inside}</source>"
        f"{chain}{more}<target dev='vda'/></disk>"
    )


def data(inside="", *, kind="file", raw="raw", options=""):
    return (
        f"<dataStore type='{kind}'><format type='{raw}'/>"
        f"<source file='/i/d' {options}>{inside}</source></dataStore>"
    )


def below_on(kind, source):
    return row(more=f"<backingStore type='{kind}'><source {source}/></backingStore>")


PART = "<slices><slice type='storage' offset='0' size='512'/></slices>"
ENCRYPTED = "<encryption format='luks'/>"
BELOW = "<source file='/i/b'>{}</source>"
ROWS = {
    "`<driver type>` that is neither raw nor qcow2": [row(driver="vdi")],
    "`<slices>`": [row(PART, driver="raw")],
    "`fdgroup`": [row().replace("'/i/a'", "'/i/a' fdgroup='g'")],
    "`<encryption>`, of the source or of the disk": [row(ENCRYPTED), row(more=ENCRYPTED)],
    "`<dataStore>` on a file or block device": [row(data()), row(data(kind="block").replace(
        "file='/i/d'", "dev='/dev/d'"))],
    "`<dataStore>` elsewhere, not raw, encrypted, with `<slices>` or `fdgroup`": [
        row(data(kind="network")), row(data(raw="qcow2")), row(data(ENCRYPTED)), row(data(PART)),
        row(data(options="fdgroup='g'")),
    ],
    "`<backingStore>` on a file or block device": [
        below_on("file", "file='/i/b'"), below_on("block", "dev='/dev/b'")
    ],
    "`<backingStore>` elsewhere": [
        below_on("network", "protocol='nbd'"), below_on("nvme", "type='pci'"),
        below_on("volume", "pool='p' volume='v'"), below_on("dir", "dir='/d'"),
        below_on("vhostuser", "path='/p'"), below_on("vhostvdpa", "dev='/p'"),
    ],
    "`<backingStore>` with `<slices>` or `fdgroup`": [
        row(below=BELOW.format(PART)), below_on("file", "file='/i/b' fdgroup='g'")
    ],
    "`<backingStore>` with `<encryption>`": [row(below=BELOW.format(ENCRYPTED))],
    "`<backingStore>` with `<dataStore>` on a file or block device": [
        row(below=BELOW.format(data()))
    ],
    "`<backingStore>` with another `<dataStore>`": [
        row(below=BELOW.format(data(kind="network"))), row(below=BELOW.format(data(PART)))
    ],
}  # fmt: skip


def is_taken(xml, reader):
    (read,) = read_by(reader, etree.fromstring(xml))
    if not isinstance(read, Disk):
        return False
    if reader is Reader.PULL_JOB:
        return True  # QEMU has opened all of it
    with_data = any(image.data_file for image in read.told.images)
    return not read.told.reason and not (reader is Reader.COPY and with_data)


def test_the_table_of_the_docs_is_what_is_done():
    _, _, table = DOCS.partition("<!-- compared by tests/unit/model/test_disk_schema.py -->\n")
    table, _, _ = table.partition("\n\n")
    told = {}
    for line in re.findall(r"^\|(.*)\|$", table, re.MULTILINE)[2:]:
        name, *cells = (cell.strip() for cell in line.split("|"))
        told[name] = cells
    expected = {}
    for name, examples in ROWS.items():
        cells = [
            {is_taken(xml, reader) for xml in examples}
            for reader in (Reader.COPY, Reader.PULL_JOB, Reader.QEMU_NBD)
        ]
        assert all(len(cell) == 1 for cell in cells), name
        expected[name] = ["yes" if cell == {True} else "no" for cell in cells]
    assert told == expected
