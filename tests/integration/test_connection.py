"""Opening a connection: with credentials, without an answer, and again after it was lost."""

import pytest
from anyio import to_thread

from virtbackup_async.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    DomainNotFoundError,
    HypervisorError,
)
from virtbackup_async.hypervisor import open_hypervisor

# libvirt's own test driver asks for credentials when its file names users.
WITH_USERS = """\
<node>
  <domain type='test'><name>guarded</name><memory>4096</memory><os><type>hvm</type></os></domain>
  <auth><user password='sesame'>admin</user></auth>
</node>
"""


@pytest.fixture
def guarded(tmp_path):
    path = tmp_path / "node.xml"
    path.write_text(WITH_USERS)
    return f"test://{path}"


async def test_username_and_passphrase_open_the_connection(guarded):
    async with open_hypervisor(guarded, username="admin", passphrase="sesame") as hypervisor:
        assert "guarded" in await hypervisor.domain_names()


@pytest.mark.parametrize(
    ("username", "passphrase"), [("admin", "not-it"), ("nobody", "sesame"), (None, None)]
)
async def test_wrong_credentials_are_refused_without_saying_them(guarded, username, passphrase):
    with pytest.raises(ConnectionFailedError) as raised:
        async with open_hypervisor(guarded, username=username, passphrase=passphrase):
            pass
    assert "sesame" not in str(raised.value)
    assert "not-it" not in str(raised.value)


async def test_a_daemon_that_is_not_there():
    uri = "qemu+unix:///session?socket=/nonexistent/libvirt-sock"
    with pytest.raises(ConnectionFailedError, match="/nonexistent/libvirt-sock") as raised:
        async with open_hypervisor(uri):
            pass
    assert raised.value.hint is not None


async def test_a_domain_that_is_not_there(daemon):
    async with open_hypervisor(daemon.uri) as hypervisor:
        with pytest.raises(DomainNotFoundError, match="nobody"):
            await hypervisor.domain("nobody")


async def test_a_lost_connection_is_said_and_opened_again(daemon):
    async with open_hypervisor(daemon.uri) as hypervisor:
        before = await hypervisor.domain_names()
        await to_thread.run_sync(daemon.kill)
        with pytest.raises(ConnectionLostError):
            await hypervisor.domain_names()
        assert not await hypervisor.is_alive()
        with pytest.raises(ConnectionFailedError):
            await hypervisor.reconnect()
        with pytest.raises(HypervisorError):
            await hypervisor.domain_names()
        await to_thread.run_sync(daemon.start)
        await hypervisor.reconnect()
        await hypervisor.reconnect()
        assert await hypervisor.domain_names() == before
