"""Where a domain's UEFI variables and its TPM's state lie."""

from pathlib import Path

import pytest
from lxml import etree

from virtbackup_async.model import domain_state
from virtbackup_async.model.backup import NVRAM, PSTORE, TPM, VARSTORE
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.domain_state import (
    StatePlace,
    state_places,
)

UUID = "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b"
SWTPM = Path("/var/lib/libvirt/swtpm")


def places(inside, swtpm=SWTPM):
    xml = f"<domain>{inside}</domain>"
    return state_places(DomainInfo("web", UUID, -1, False, True, xml, swtpm))


def tpm(backend):
    return f"<devices><tpm model='tpm-crb'>{backend}</tpm></devices>"


def test_domain_with_a_bios_has_no_state():
    assert places("<os><type>hvm</type></os><devices/>") == ()


@pytest.mark.parametrize(
    "nvram",
    [
        "<nvram template='/t.fd'>/n/web.fd</nvram>",
        "<nvram>\n  /n/web.fd\n</nvram>",
        "<nvram type='file'><source file='/n/web.fd'/></nvram>",
    ],
)
def test_uefi_variables_are_one_file(nvram):
    assert places(f"<os>{nvram}</os>") == (StatePlace(NVRAM, Path("/n/web.fd")),)


def test_format_of_uefi_variables():
    (place,) = places("<os><nvram format='qcow2'>/n/web.qcow2</nvram></os>")
    assert place.format == "qcow2"


def test_uefi_variables_in_a_varstore_are_one_file():
    varstore = "<varstore template='/t.json' path='/n/web.json'/>"
    assert places(f"<os>{varstore}</os>") == (StatePlace(VARSTORE, Path("/n/web.json")),)


def test_what_a_crashed_kernel_said_is_one_file():
    pstore = "<pstore backend='acpi-erst'><path>/n/web.raw</path><size>8</size></pstore>"
    assert places(f"<devices>{pstore}</devices>") == (StatePlace(PSTORE, Path("/n/web.raw")),)


@pytest.mark.parametrize(
    ("backend", "path"),
    [
        ("<backend type='emulator' version='2.0'/>", SWTPM / UUID / "tpm2"),
        ("<backend type='emulator'/>", SWTPM / UUID / "tpm2"),
        ("<backend type='emulator' version='1.2'/>", SWTPM / UUID / "tpm1.2"),
        ("<backend type='emulator'><source type='dir' path='/t/web'/></backend>", Path("/t/web")),
    ],
)
def test_tpm_state_is_a_directory(backend, path):
    assert places(tpm(backend)) == (StatePlace(TPM, path, is_directory=True),)


def test_tpm_state_in_one_file():
    source = "<source type='file' path='/t/web.state'/>"
    (place,) = places(tpm(f"<backend type='emulator'>{source}</backend>"))
    assert place == StatePlace(TPM, Path("/t/web.state"))


@pytest.mark.parametrize(
    ("inside", "kind", "reason"),
    [
        ("<os><nvram/></os>", NVRAM, "does not say where"),
        ("<os><varstore template='/t.json'/></os>", VARSTORE, "does not say where"),
        ("<devices><pstore backend='acpi-erst'/></devices>", PSTORE, "does not say where"),
        ("<os><nvram type='network'><source protocol='iscsi'/></nvram></os>", NVRAM, "network"),
        ("<os><nvram type='block'><source dev='/dev/x'/></nvram></os>", NVRAM, "block"),
        (tpm("<backend type='passthrough'><device path='/dev/tpm0'/></backend>"), TPM, "passthr"),
        (tpm("<backend type='external'/>"), TPM, "external"),
        (tpm("<backend type='emulator'><source type='x' path='y'/></backend>"), TPM, "x storage"),
    ],
)
def test_what_cannot_be_copied_has_a_reason(inside, kind, reason):
    (place,) = places(inside)
    assert (place.kind, place.path) == (kind, None)
    assert reason in place.reason


def test_libvirt_that_tells_no_place_of_tpms():
    (place,) = places(tpm("<backend type='emulator'/>"), swtpm=None)
    assert place.path is None
    assert "not known" in place.reason


def test_nvram_is_set_whatever_it_was():
    nvram = "<nvram template='/t' type='file'><source file='/n/web.fd'/></nvram>"
    root = etree.fromstring(f"<domain><os>{nvram}</os></domain>")
    domain_state.set_variables(root, Path("/r/web & co.fd"))
    assert etree.tostring(root[0][0]) == b'<nvram template="/t">/r/web &amp; co.fd</nvram>'
    domain_state.set_variables(root, None)
    assert etree.tostring(root[0][0]) == b'<nvram template="/t"/>'


def test_varstore_is_set_and_left_to_libvirt():
    root = etree.fromstring(
        "<domain><os><varstore template='/t' path='/n/web.json'/></os></domain>"
    )
    domain_state.set_variables(root, Path("/r/web.json"))
    assert dict(root[0][0].attrib) == {"template": "/t", "path": "/r/web.json"}
    domain_state.set_variables(root, None)
    assert dict(root[0][0].attrib) == {"template": "/t"}


def test_only_the_emulators_tpm_is_left_to_libvirt():
    source = "<source type='dir' path='/t'/><encryption secret='s'/>"
    emulated = tpm(f"<backend type='emulator'>{source}</backend>")
    external = tpm("<backend type='external'><source/></backend>")
    root = etree.fromstring(f"<domain>{emulated}{external}</domain>")
    domain_state.leave_to_libvirt(root)
    children = [[child.tag for child in backend] for backend in root.iter("backend")]
    assert children == [["encryption"], ["source"]]


OWN = frozenset({Path("/n")})
ELSEWHERE = ["/etc/cron.d/x", "/n/../etc/x", "/n/sub/x", "/n/..", "/n", "/", "n/x", "x", "//n2/x"]
FORMS = {
    NVRAM: "<os><nvram type='file'><source file='{}'/></nvram></os>",
    "nvram, in brief": "<os><nvram>{}</nvram></os>",
    VARSTORE: "<os><varstore path='{}'/></os>",
    PSTORE: "<devices><pstore><path>{}</path></pstore></devices>",
    TPM: tpm("<backend type='emulator'><source type='file' path='{}'/></backend>"),
}


@pytest.mark.parametrize("form", FORMS)
def test_only_a_file_in_a_directory_of_libvirts_own_stays_there(form):
    kind = form.partition(",")[0]
    held = {kind: Path("/r/held")}

    def brought(path):
        root = etree.fromstring(f"<domain>{FORMS[form].format(path)}</domain>")
        moved = domain_state.bring_home(root, OWN, held)
        info = DomainInfo("web", UUID, -1, False, True, etree.tostring(root, encoding="unicode"))
        return [place.path for place in state_places(info)], moved

    assert brought("/n/web.fd") == ([Path("/n/web.fd")], ())
    for path in ELSEWHERE:
        places_now, (said,) = brought(path)
        assert places_now == [Path("/r/held")]
        assert said.startswith(domain_state.LABELS[kind])
        assert said.endswith(f"the domain uses /r/held, not {Path(path)}")


def test_a_directory_of_tpm_state_is_only_ever_libvirts_own():
    elsewhere = SWTPM / "another" / "tpm2"
    source = f"<source type='dir' path='{elsewhere}'/><encryption secret='s'/>"
    emulated = tpm(f"<backend type='emulator'>{source}</backend>")
    root = etree.fromstring(f"<domain>{emulated}</domain>")
    (said,) = domain_state.bring_home(root, OWN, {TPM: Path("/r/tpm-x")})
    assert str(elsewhere) in said
    assert [child.tag for child in root.iterfind("devices/tpm/backend/*")] == ["encryption"]


def test_what_was_not_restored_is_left_as_it_is():
    xml = "<domain><os><nvram>/etc/x</nvram></os></domain>"
    root = etree.fromstring(xml)
    assert domain_state.bring_home(root, OWN, {TPM: Path("/r/t"), "future": Path("/r/f")}) == ()
    assert etree.tostring(root, encoding="unicode") == xml
