"""Every place of libvirt's schema that may name a path of the host is known, and dealt with."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from lxml import etree

from libvirt_schema import may_be_path, places
from virtbackup_async.model import host_paths
from virtbackup_async.model.host_paths import PLACES, Meaning, meaning_of, needed, unsaved
from virtbackup_async.model.restored_xml import restored_xml

# Debian's libvirt 12.8, walked in the same way; disks and the source of <nvram> aside.
NEWER = Path(__file__).with_name("libvirt-12.8-paths.txt").read_text().split()
QEMU = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"


@pytest.fixture(scope="module")
def schema():
    return {place for place, types in places().items() if may_be_path(place, types)}


def test_every_place_that_may_name_a_path_is_known(schema):
    assert len(schema) > 90
    assert {"os/nvram", "devices/serial/source@path", "devices/memory/source/path"} <= schema
    assert [place for place in sorted(schema) if meaning_of(place) is None] == []


def test_every_place_of_a_newer_libvirt_is_known():
    assert {"os/varstore@path", "devices/pstore/path"} <= set(NEWER)
    assert [place for place in NEWER if meaning_of(place) is None] == []


def test_no_place_is_known_twice_or_for_nothing(schema):
    everywhere = schema | set(NEWER)
    for known in PLACES:
        assert any(fnmatchcase(place, known) for place in everywhere), known
    for place in everywhere:
        assert len([known for known in PLACES if fnmatchcase(place, known)]) == 1, place


def test_a_place_that_libvirt_does_not_have_is_not_known():
    assert meaning_of("devices/teleporter/source@file") is None


DISK = """<disk type='file' device='disk'><source file='/i/web.qcow2'/><target dev='vda'/></disk>"""
WRITTEN = {
    "devices/memory/source/path": "<memory model='nvdimm'><source><path>{}</path></source>"
    "<target><size unit='MiB'>64</size></target></memory>",
    "devices/pstore/path": "<pstore backend='acpi-erst'><path>{}</path></pstore>",
    "devices/filesystem/source@*": "<filesystem type='mount'><source dir='{}'/>"
    "<target dir='share'/></filesystem>",
    "devices/hostdev/source/block": "<hostdev mode='capabilities' type='storage'><source>"
    "<block>{}</block></source></hostdev>",
    "devices/tpm/backend/source@path": "<tpm><backend type='emulator'>"
    "<source type='file' path='{}'/></backend></tpm>",
    "devices/tpm/backend/device@path": "<tpm><backend type='passthrough'><device path='{}'/>"
    "</backend></tpm>",
    "devices/audio@path": "<audio id='1' type='file' path='{}'/>",
    "devices/channel/source@path": "<channel type='unix'><source mode='bind' path='{}'/></channel>",
    "devices/console/source@path": "<console type='file'><source path='{}'/></console>",
    "devices/parallel/source@path": "<parallel type='dev'><source path='{}'/></parallel>",
    "devices/redirdev/source@path": "<redirdev bus='usb' type='dev'><source path='{}'/></redirdev>",
    "devices/serial/source@path": "<serial type='unix'><source mode='bind' path='{}'/></serial>",
    "devices/smartcard/source@path": "<smartcard mode='passthrough' type='unix'>"
    "<source mode='bind' path='{}'/></smartcard>",
    "devices/rng/backend/source@path": "<rng model='virtio'><backend model='egd' type='unix'>"
    "<source mode='connect' path='{}'/></backend></rng>",
    "devices/*/log@file": "<serial type='pty'><log file='{}'/></serial>",
    "devices/interface/backend@logFile": "<interface type='user'>"
    "<backend type='passt' logFile='{}'/></interface>",
    "devices/interface/source@path": "<interface type='vhostuser'>"
    "<source type='unix' path='{}' mode='server'/></interface>",
    "devices/graphics@socket": "<graphics type='vnc' socket='{}'/>",
    "devices/graphics/listen@socket": "<graphics type='spice'>"
    "<listen type='socket' socket='{}'/></graphics>",
    "devices/lease/target@path": "<lease><target path='{}'/></lease>",
    "devices/shmem/server@path": "<shmem name='s'><server path='{}'/></shmem>",
    "os/nvram": "<nvram>{}</nvram>",
    "os/nvram/source*": "<nvram type='file'><source file='{}'/></nvram>",
    "os/varstore@path": "<varstore template='/t.json' path='{}'/>",
}
WRITABLE = {Meaning.STATE, Meaning.DATA, Meaning.OWN, Meaning.SHARED}


def domain(inside, *, of_devices):
    os_, devices = ("", inside) if of_devices else (inside, "")
    return (
        f"<domain {QEMU}><name>web</name><memory unit='KiB'>1048576</memory>"
        f"<os><type>hvm</type>{os_}</os><devices>{DISK}{devices}</devices></domain>"
    )


def twin_of(xml):
    return restored_xml(xml, {"vda": Path("/r/web.qcow2")}, new_name="twin")


def test_there_is_an_example_of_all_that_a_domain_writes_to():
    assert {place for place, meaning in PLACES.items() if meaning in WRITABLE} == set(WRITTEN)


@pytest.mark.parametrize("place", WRITTEN)
def test_a_twin_shares_no_path_that_the_original_writes_to(place):
    path = "/srv/its own & only"
    escaped = path.replace("&", "&amp;")
    xml = domain(WRITTEN[place].format(escaped), of_devices=place.startswith("devices/"))
    assert path in etree.fromstring(xml).xpath("string()") or escaped in xml
    twin = twin_of(xml)
    assert escaped not in twin.xml
    # UEFI variables, the emulator's TPM and pstore the twin gets from the backup.
    is_given = PLACES[place] is Meaning.STATE and "device@" not in place
    assert (twin.unshared == ()) == is_given
    if not is_given and place != "devices/tpm/backend/device@path":
        assert any(path in line or "/" not in line for line in twin.unshared)
    same = restored_xml(xml, {"vda": Path("/r/web.qcow2")})
    assert escaped in same.xml
    assert same.unshared == ()


def test_a_twin_keeps_what_it_only_reads():
    share = "<filesystem type='mount'><source dir='/ro'/><target dir='s'/><readonly/></filesystem>"
    rom = "<interface type='network'><rom file='/rom'/></interface>"
    keyboard = "<input type='evdev'><source dev='/dev/input/event1'/></input>"
    pty = "<serial type='pty'><source path='/dev/pts/3'/></serial>"
    twin = twin_of(domain(share + rom + keyboard + pty, of_devices=True))
    for path in ("/ro", "/rom", "/dev/input/event1", "/dev/pts/3"):
        assert f"'{path}'" in twin.xml.replace('"', "'")
    assert twin.unshared == ()


def test_a_socket_that_libvirt_made_is_no_loss():
    path = "/var/lib/libvirt/qemu/channel/target/domain-3-web/org.qemu.guest_agent.0"
    xml = domain(WRITTEN["devices/channel/source@path"].format(path), of_devices=True)
    twin = twin_of(xml)
    assert path not in twin.xml
    assert twin.unshared == ()
    assert etree.fromstring(twin.xml).find("devices/channel").get("type") == "unix"


def test_a_console_that_is_the_serial_device_is_told_once():
    both = "<{0} type='file'><source path='/log'/></{0}>"
    xml = domain(both.format("serial") + both.format("console"), of_devices=True)
    twin = twin_of(xml)
    assert twin.unshared == ("serial0: /log",)
    devices = etree.fromstring(twin.xml).find("devices")
    assert [devices.find(tag).get("type") for tag in ("serial", "console")] == ["pty", "pty"]


def test_memory_that_is_left_out_is_not_counted():
    memory = WRITTEN["devices/memory/source/path"].format("/pmem")
    twin = etree.fromstring(twin_of(domain(memory, of_devices=True)).xml)
    assert twin.findtext("memory") == str(1048576 - 64 * 1024)


def command_line(*words):
    arguments = "".join(f"<qemu:arg value='{word}'/>" for word in words)
    xml = domain("", of_devices=True)
    inside = f"<qemu:commandline>{arguments}</qemu:commandline></domain>"
    return xml.replace("</domain>", inside)


def test_qemus_own_arguments_are_shared_if_they_only_read():
    xml = command_line("-fw_cfg", "name=opt/x,file=/etc/ignition", "-global", "a.b=on")
    assert unsaved(xml) == ()
    assert "/etc/ignition" in twin_of(xml).xml


def test_qemus_own_arguments_that_may_write_are_told():
    xml = command_line("-drive", "file=/srv/own.img,if=virtio")
    (found,) = unsaved(xml)
    assert found.dev == "qemu:commandline"
    assert "/srv/own.img" in found.reason
    twin = twin_of(xml)
    assert "/srv/own.img" not in twin.xml
    assert "/srv/own.img" in "".join(twin.unshared)


@pytest.mark.parametrize(
    ("device", "name", "said"),
    [
        (WRITTEN["devices/memory/source/path"].format("/p"), "nvdimm0", "persistent memory in /p"),
        (
            "<memory model='virtio-pmem'><source><path>/p</path></source></memory>",
            "virtiopmem0",
            "persistent memory in /p",
        ),
        (WRITTEN["devices/filesystem/source@*"].format("/s"), "fs0", "of the host, /s"),
        ("<hostdev mode='subsystem' type='scsi'><source/></hostdev>", "hostdev0", "a scsi device"),
        ("<hostdev mode='subsystem' type='pci'><source/></hostdev>", "hostdev0", "a pci device"),
    ],
)
def test_what_a_guest_stores_beside_its_disks_is_named(device, name, said):
    (found,) = unsaved(domain(device, of_devices=True))
    assert found.dev == name
    assert said in found.reason


@pytest.mark.parametrize(
    "device",
    [
        "<memory model='dimm'><target><size unit='MiB'>64</size></target></memory>",
        "<memory model='sgx-epc'><source><nodemask>0</nodemask></source></memory>",
        "<filesystem type='ram'><source usage='10'/></filesystem>",
    ],
)
def test_what_holds_nothing_when_the_guest_is_off_is_not_named(device):
    assert unsaved(domain(device, of_devices=True)) == ()


def test_devices_are_numbered_as_libvirt_does():
    share = WRITTEN["devices/filesystem/source@*"]
    found = unsaved(domain(share.format("/a") + share.format("/b"), of_devices=True))
    assert [disk.dev for disk in found] == ["fs0", "fs1"]


def test_files_that_the_host_hands_to_a_guest():
    inside = "<kernel>/k</kernel><initrd>\n/i\n</initrd><acpi><table type='slic'>/t</table></acpi>"
    xml = domain(inside, of_devices=False)
    rom = "<hostdev type='pci'><rom file='/rom'/></hostdev><hostdev type='pci'><rom file='/rom'/>"
    certificates = "<smartcard><database>/db</database>"
    xml = xml.replace("</devices>", f"{rom}</hostdev>{certificates}</smartcard></devices>")
    assert sorted(needed(xml)) == ["/db", "/i", "/k", "/rom", "/t"]


def test_command_line_without_words():
    assert host_paths.written_words(etree.fromstring("<x/>")) == ()
