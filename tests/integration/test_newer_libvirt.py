"""What only newer versions of libvirt have, on a real one: all that the installed one knows.

::

    libvirt 10.6    <pstore>      what the guest's kernel said as it crashed
    libvirt 12.1    <varstore>    UEFI variables

Each is held against the same as flash memory, which every version knows. What a version does not
know, it forgets as it defines the domain: that is tested too, so the table here is true.
"""

import json
from pathlib import Path

import pytest

from lab.disks import DiskSpec
from lab.domains import LabDomain, define
from lab.libvirt_root import installed_version
from lab_site import LabSite

SINCE = {"nvram": (0,), "pstore": (10, 6), "varstore": (12, 1)}
KNOWN = [kind for kind, since in SINCE.items() if installed_version() >= since]
ELEMENTS = {"nvram": "os/nvram", "pstore": "devices/pstore", "varstore": "os/varstore"}
OWN_NAMES = {
    "nvram": "nvram/{}_VARS.fd",
    "pstore": "nvram/{}_PSTORE.raw",
    "varstore": "varstore/{}.json",
}
TEMPLATE = '{"version": 2, "variables": []}'
VARIABLE = {
    "name": "Boot0001",
    "guid": "8be4df61-93ca-11d2-aa0d-00e098032b8c",
    "attr": 7,
    "data": "c0ffee",
}
PSTORE = "<pstore backend='acpi-erst'><path>{}</path><size unit='KiB'>64</size></pstore>"


class KindSite(LabSite):
    """A domain with state of one kind, which QEMU has in use; and commands on it."""

    def __init__(self, daemon, kind, path, directory):
        self.kind = kind
        name = f"with-{kind}"
        self.path = path or daemon.path / "c/libvirt/qemu" / OWN_NAMES[kind].format(name)
        options = {"devices": PSTORE.format(self.path)} if kind == "pstore" else {kind: self.path}
        domain = define(daemon, name, [DiskSpec("vda", fs=None)], agent=False, **options)
        super().__init__(daemon, domain, directory)
        if kind == "varstore":
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.with_name("template.json").write_text(TEMPLATE)

    def fill(self):
        """Let QEMU make the file, and write into it what a guest might; it is in use again then."""
        self.domain.start_paused()
        self.domain.destroy()
        if self.kind == "varstore":
            content = json.loads(self.path.read_text())
            content["variables"].append(VARIABLE)
            self.path.write_text(json.dumps(content))
        else:
            with self.path.open("r+b") as file:
                file.seek(-4096, 2)
                file.write(b"panic" * 800)
        # Paused: the firmware may change it at any time.
        self.domain.start_paused()

    def content(self, path=None):
        return (path or self.path).read_bytes()

    def path_of(self, domain):
        element = domain.xml(inactive=True).find(ELEMENTS[self.kind])
        named = {
            "pstore": lambda: element.findtext("path"),
            "varstore": lambda: element.get("path"),
        }
        return Path(named.get(self.kind, lambda: element.text)())

    def undefine(self):
        super().undefine("--nvram")
        self.path.unlink(missing_ok=True)


@pytest.fixture
def make_site(daemon, tmp_path, monkeypatch):
    # The daemon keeps such files below its own configuration directory, and so do we.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    sites = []

    def make(kind, path=None):
        sites.append(KindSite(daemon, kind, path, tmp_path))
        return sites[-1]

    yield make
    for site in sites:
        site.domain.undefine()
        site.path.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", SINCE)
def test_libvirt_forgets_what_it_does_not_know(make_site, kind):
    site = make_site(kind)
    has_it = site.domain.xml(inactive=True).find(ELEMENTS[kind]) is not None
    assert has_it == (kind in KNOWN)
    site.run("backup")
    definition = site.definition()
    # Nothing has started it yet: flash memory is there, QEMU would make the others.
    assert [file["kind"] for file in definition["state_files"]] == ["nvram"] * (kind == "nvram")
    assert set(definition["skipped"]) == ({kind} if has_it and kind != "nvram" else set())


@pytest.mark.parametrize("kind", KNOWN)
def test_state_of_a_domain_that_is_lost_comes_back(make_site, kind):
    site = make_site(kind)
    site.fill()
    site.run("backup")
    content = site.content()
    assert site.definition()["skipped"] == {}
    site.undefine()
    assert not site.path.exists()

    done = site.restore(site.restored, "--define")

    assert "not what was backed up" not in done.stderr
    assert site.path_of(site.domain) == site.path
    assert site.content() == content
    assert site.path.stat().st_mode & 0o777 == 0o600
    site.domain.start_paused()
    assert site.domain.state() == "paused"
    assert site.content() == content


@pytest.mark.parametrize("kind", KNOWN)
def test_state_that_was_elsewhere_comes_into_the_target(make_site, kind, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    site = make_site(kind, elsewhere / "state")
    site.fill()
    site.run("backup")
    content = site.content()
    site.undefine()

    done = site.restore(site.restored, "--define")

    home = site.path_of(site.domain)
    assert f"the domain uses {home}" in " ".join(done.stderr.split())
    assert home.parent == site.restored
    site.domain.start_paused()
    assert site.domain.state() == "paused"
    assert site.content(home) == content
    assert not site.path.exists()


@pytest.mark.parametrize("kind", KNOWN)
def test_a_twin_has_its_own_and_takes_nothing_with_it(make_site, kind):
    site = make_site(kind)
    site.fill()
    site.run("backup")
    content = site.content()
    site.restore(site.restored, "--name", "twin")
    twin = LabDomain(site.daemon, "twin", site.domain.console, agent=False)
    try:
        home = site.path_of(twin)
        assert home != site.path
        assert site.content(home) == content
        twin.start_paused()
        assert twin.state() == site.domain.state() == "paused"
    finally:
        twin.undefine()
    assert site.content() == content
    assert site.domain.state() == "paused"
    home.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", KNOWN)
def test_state_is_restored_in_place(make_site, kind):
    site = make_site(kind)
    site.fill()
    site.run("backup")
    content = site.content()
    site.domain.destroy()
    site.path.write_bytes(content[: len(content) // 2])
    site.restore("--in-place")
    assert site.content() == content
    site.domain.start_paused()
    assert site.domain.state() == "paused"
