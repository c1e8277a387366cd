"""A libvirt that accepts connections and never answers: it is told, and a signal ends the wait."""

import socket
import tempfile
from pathlib import Path

import anyio
import pytest

from virtbackup_async.errors import ConnectionFailedError, HypervisorError
from virtbackup_async.hypervisor import connection, open_hypervisor
from virtbackup_async.hypervisor.errors import Attempt


@pytest.fixture
def silent():
    """The URI of a daemon that says nothing, and its socket."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "libvirt-sock"
        listener.bind(str(path))
        listener.listen()
        yield f"qemu+unix:///session?socket={path}", listener


async def test_it_is_told_when_its_time_is_over(silent, monkeypatch):
    monkeypatch.setattr(connection, "OPEN_TIMEOUT_S", 0.1)
    uri, _listener = silent
    with pytest.raises(ConnectionFailedError, match="does not answer within") as raised:
        async with open_hypervisor(uri):
            pass
    assert raised.value.hint is not None


async def test_a_cancellation_ends_the_wait(silent):
    uri, listener = silent
    opened = []

    async def open_it():
        async with open_hypervisor(uri):
            opened.append(uri)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_it)
        accepted, _ = await anyio.to_thread.run_sync(listener.accept)
        tasks.cancel_scope.cancel()
    accepted.close()
    assert opened == []


async def test_a_question_has_its_time(daemon, monkeypatch):
    never = anyio.Event()
    async with open_hypervisor(daemon.uri) as hypervisor:
        assert isinstance(await hypervisor.domain_names(), tuple)
        monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.05)
        hang = anyio.from_thread.run
        with pytest.raises(HypervisorError, match="ask: libvirt does not answer within"):
            await hypervisor._connection.ask(Attempt(None, "ask"), hang, never.wait)
        never.set()
