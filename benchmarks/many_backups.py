"""A target of many backups, to be listed: real definitions with domain XML of 8 KB each.

The packages have no length: `list` does not open them.
"""

from pathlib import Path

from virtbackup_async.catalog import definition_file
from virtbackup_async.model.backup import Definition, DiskRecord, ImageRecord, Packager

DAY_S = 86_400
FIRST = 1_700_000_000
XML_LINE = "      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>\n"
XML = f"<domain type='kvm'>\n{XML_LINE * (8 * 1024 // len(XML_LINE))}</domain>\n"
GIB = 1 << 30


def build(target: Path, backups: int, domains: int) -> None:
    """Make the target: `backups` in all, a day between those of a domain."""
    for number in range(backups):
        domain, day = f"guest-{number % domains:03}", number // domains
        directory = target / domain
        directory.mkdir(parents=True, exist_ok=True)
        made = definition(domain, FIRST + day * DAY_S, f"{20_000_000 + day}-030000_3_{domain}")
        (directory / f"{made.name}.json").write_bytes(definition_file.dumps(made))
        (directory / f"{made.name}.tar").touch()


def definition(domain: str, date: int, name: str) -> Definition:
    """Return a definition as the engine writes it, of two disks."""
    records = {dev: DiskRecord(image(name, dev)) for dev in ("vda", "vdb")}
    return Definition(
        name=name,
        domain_id=3,
        domain_name=domain,
        domain_xml=XML,
        disks={dev: record.image.file for dev, record in records.items()},
        version="1.0.0",
        date=date,
        packager=Packager("tar"),
        domain_uuid="9c4b1c4e-6b0f-4a5e-9d4e-0d6f1f1f7a11",
        records=records,
        quiesced=True,
        state="running",
        frozen_ms=90,
    )


def image(name: str, dev: str) -> ImageRecord:
    """Return what is recorded of one image."""
    source = f"/var/lib/libvirt/images/{dev}.qcow2"
    digest = "blake3-256k:" + "ab" * 32
    return ImageRecord(f"{name}_{dev}.qcow2", source, "qcow2", 20 * GIB, GIB, GIB, digest)
