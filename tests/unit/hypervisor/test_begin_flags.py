"""Which flags ``backupBegin`` gets: the daemon's version decides, not the binding's."""

import pytest

from virtbackup_async.hypervisor.domain import _begin_flags


class Connection:
    def __init__(self, version):
        self.version = version

    def connect(self):
        return self

    def getLibVersion(self):  # noqa: N802 -- libvirt's name
        return self.version


@pytest.mark.parametrize(
    ("version", "flags"), [(9_000_000, 0), (11_009_999, 0), (11_010_000, 2), (12_008_000, 2)]
)
def test_a_daemon_that_can_keeps_a_guest_that_powers_itself_off(version, flags):
    assert _begin_flags(Connection(version)) == flags
