"""Where each kind of libvirt keeps the state of emulated TPMs."""

from pathlib import Path

import pytest

from virtbackup_async.hypervisor.swtpm import swtpm_directory


@pytest.mark.parametrize(
    ("uri", "directory"),
    [
        ("qemu:///system", "/var/lib/libvirt/swtpm"),
        ("qemu+ssh://root@host/system", "/var/lib/libvirt/swtpm"),
        ("qemu+unix:///session?socket=/tmp/s", "/c/libvirt/qemu/swtpm"),
        ("qemu:///embed?root=/tmp/a%20b", "/tmp/a b/lib/swtpm"),
    ],
)
def test_place_by_uri(monkeypatch, uri, directory):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    assert swtpm_directory(uri) == Path(directory)


def test_session_without_xdg_is_below_the_home(monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/h")
    assert swtpm_directory("qemu:///session") == Path("/h/.config/libvirt/qemu/swtpm")


@pytest.mark.parametrize("uri", ["test:///default", "lxc:///system", "qemu:///embed", "qemu:///x"])
def test_place_that_is_not_known(uri):
    assert swtpm_directory(uri) is None
