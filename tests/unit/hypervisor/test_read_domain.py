"""Where each kind of libvirt keeps what is its own."""

from pathlib import Path

import pytest

from virtbackup_async.hypervisor.read_domain import libvirt_directories


@pytest.mark.parametrize(
    ("uri", "swtpm", "running"),
    [
        ("qemu:///system", "/var/lib/libvirt/swtpm", "/var/lib/libvirt/qemu"),
        ("qemu+ssh://root@host/system", "/var/lib/libvirt/swtpm", "/var/lib/libvirt/qemu"),
        (
            "qemu+unix:///session?socket=/tmp/s",
            "/c/libvirt/qemu/swtpm",
            "/c/libvirt/qemu/lib",
        ),
        ("qemu:///embed?root=/tmp/a%20b", "/tmp/a b/lib/swtpm", "/tmp/a b/lib/qemu"),
    ],
)
def test_places_by_uri(monkeypatch, uri, swtpm, running):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    directories = libvirt_directories(uri)
    assert (directories.swtpm, directories.running) == (Path(swtpm), Path(running))


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("qemu:///system", "/var/lib/libvirt/qemu"),
        ("qemu:///session", "/c/libvirt/qemu"),
        ("qemu:///embed?root=/tmp/a%20b", "/tmp/a b/lib/qemu"),
    ],
)
def test_files_of_state_by_uri(monkeypatch, uri, base):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    assert libvirt_directories(uri).state == {Path(base, "nvram"), Path(base, "varstore")}


def test_session_without_xdg_is_below_the_home(monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/h")
    assert libvirt_directories("qemu:///session").swtpm == Path("/h/.config/libvirt/qemu/swtpm")


@pytest.mark.parametrize("uri", ["test:///default", "lxc:///system", "qemu:///embed", "qemu:///x"])
def test_place_that_is_not_known(uri):
    assert libvirt_directories(uri) is None
