"""A hypervisor and its connection, with a libvirt that answers what the test wants."""

import re
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import libvirt
import pytest

from fakes.moved_clock import moved_clock
from virtbackup_async.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    DomainNotFoundError,
    HypervisorError,
)
from virtbackup_async.hypervisor import connection as connection_module
from virtbackup_async.hypervisor import hypervisor as module
from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.errors import Attempt
from virtbackup_async.hypervisor.hypervisor import open_hypervisor

UUID = "00000000-0000-4000-8000-00000000000{}"
URI = "qemu+tls://host/system"


def said(code, domain=libvirt.VIR_FROM_QEMU):
    error = libvirt.libvirtError("call failed")
    error.err = (code, domain, "words", 2, None, None, None, 0, 0)
    return error


LOST = said(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)
REFUSED = said(libvirt.VIR_ERR_OPERATION_FAILED)


class Named:
    """libvirt's domain: its name and UUID."""

    def __init__(self, name, number):
        self._name, self._uuid = name, UUID.format(number)

    def name(self):
        return self._name

    def UUIDString(self):  # noqa: N802 -- libvirt's name
        return self._uuid


class Libvirt:
    """libvirt's connection with two domains; ``refusals``: the error of a method's next call."""

    def __init__(self):
        self.domains = [Named("web", 1), Named("db", 2)]
        self.refusals = {}
        self.calls = []
        self.uri = "qemu:///system"
        self.alive = 1

    def _called(self, method, *args):
        self.calls.append((method, *args))
        if method in self.refusals:
            raise self.refusals.pop(method)

    def setKeepAlive(self, interval_s, count):  # noqa: N802 -- libvirt's name
        self._called("setKeepAlive", interval_s, count)

    def domainEventRegisterAny(self, domain, event, _callback, _opaque):  # noqa: N802
        self._called("register", domain, event)
        return event

    def domainEventDeregisterAny(self, callback_id):  # noqa: N802 -- libvirt's name
        self._called("deregister", callback_id)

    def close(self):
        self._called("close")

    def isAlive(self):  # noqa: N802 -- libvirt's name
        self._called("isAlive")
        return self.alive

    def listAllDomains(self, flags):  # noqa: N802 -- libvirt's name
        self._called("list", flags)
        return self.domains

    def lookupByName(self, name):  # noqa: N802 -- libvirt's name
        self._called("lookup", name)
        return self._found(lambda domain: domain.name() == name)

    def lookupByUUIDString(self, uuid):  # noqa: N802 -- libvirt's name
        self._called("lookup", uuid)
        return self._found(lambda domain: domain.UUIDString() == uuid)

    def _found(self, is_meant):
        for domain in self.domains:
            if is_meant(domain):
                return domain
        raise said(libvirt.VIR_ERR_NO_DOMAIN)

    def defineXMLFlags(self, xml, flags):  # noqa: N802 -- libvirt's name
        self._called("define", xml, flags)
        return Named("new", 3)

    def getURI(self):  # noqa: N802 -- libvirt's name
        self._called("getURI")
        return self.uri

    def getType(self):  # noqa: N802 -- libvirt's name
        return "QEMU"

    def getLibVersion(self):  # noqa: N802 -- libvirt's name
        return 9_002_013

    def getVersion(self):  # noqa: N802 -- libvirt's name
        return 7_002_000

    def of(self, method):
        return [call[1:] for call in self.calls if call[0] == method]


class Opened:
    """The ways to open a connection, and what they were given."""

    def __init__(self):
        self.handles = []
        self.refusals = []
        self.calls = []

    def open(self, uri):
        self.calls.append(("open", uri))
        return self._next()

    def open_auth(self, uri, auth, flags):
        self.calls.append(("openAuth", uri, auth, flags))
        return self._next()

    def _next(self):
        if self.refusals:
            raise self.refusals.pop(0)
        self.handles.append(Libvirt())
        return self.handles[-1]


@pytest.fixture
def opened(monkeypatch):
    """Libvirt's functions of the process: no event loop is registered with the real one."""
    opened = Opened()
    for name, function in (
        ("open", opened.open),
        ("openAuth", opened.open_auth),
        ("registerErrorHandler", lambda *args: opened.calls.append(("handler", *args))),
    ):
        monkeypatch.setattr(libvirt, name, function)
    monkeypatch.setattr(module, "register_event_impl", lambda: opened.calls.append(("events",)))
    return opened


async def test_events_and_silence_come_before_the_first_connection(opened):
    async with open_hypervisor(URI):
        pass
    assert [call[0] for call in opened.calls] == ["events", "handler", "open"]
    assert opened.calls[1][1](None, "an error") is None
    assert opened.calls[2] == ("open", URI)


async def test_a_connection_is_kept_alive_and_hears_of_jobs_and_domains(opened):
    async with open_hypervisor(None):
        (handle,) = opened.handles
        assert handle.of("setKeepAlive") == [(5, 3)]
        heard = [libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE]
        assert handle.of("register") == [(None, event) for event in heard]
        assert handle.of("close") == []
    assert handle.of("deregister") == [(event,) for event in heard]
    assert handle.calls[-1] == ("close",)


async def test_a_driver_without_keepalive_is_used_without(opened):
    class Embedded(Libvirt):
        def setKeepAlive(self, _interval_s, _count):  # noqa: N802 -- libvirt's name
            raise said(libvirt.VIR_ERR_NO_SUPPORT)

    connection = Connection(None, Embedded)
    await connection.open()
    assert len(connection.handle.of("register")) == 2


async def test_a_connection_is_closed_also_after_a_failure(opened):
    with pytest.raises(ValueError, match="of the block"):
        async with open_hypervisor(None):
            raise ValueError("of the block")
    assert opened.handles[0].calls[-1] == ("close",)


@pytest.mark.parametrize("method", ["deregister", "close"])
async def test_a_connection_that_cannot_be_closed_is_left_to_the_end_of_the_process(opened, method):
    async with open_hypervisor(None):
        opened.handles[0].refusals[method] = LOST
    assert opened.handles[0].calls[-1] == ("close",)


@asynccontextmanager
async def hanging(monkeypatch, owner, method):
    """Let a call of libvirt hang until the end; gives the clock once that call is made."""
    asked, ended = anyio.Event(), threading.Event()

    def hang(*_args):
        anyio.from_thread.run_sync(asked.set)
        ended.wait()

    monkeypatch.setattr(owner, method, hang)
    with moved_clock(monkeypatch) as clock:

        async def move():
            await asked.wait()
            clock.move(connection_module.ANSWER_TIMEOUT_S + 1)

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(move)
                yield
        finally:
            ended.set()


async def test_a_libvirt_that_hangs_as_it_closes_does_not_hold_the_end_up(opened, monkeypatch):
    async with hanging(monkeypatch, Libvirt, "domainEventDeregisterAny"), open_hypervisor(None):
        pass


async def test_a_libvirt_that_cannot_be_reached_says_where_and_what_to_check(opened):
    opened.refusals = [REFUSED]
    with pytest.raises(ConnectionFailedError) as raised:
        async with open_hypervisor(URI):
            pytest.fail("there is no connection")
    assert str(raised.value) == (
        f"libvirt at {URI}: words. Check `uri` in the configuration, and that libvirt runs."
    )


async def test_a_libvirt_that_accepts_and_is_silent_is_given_up(opened, monkeypatch):
    async with hanging(monkeypatch, libvirt, "open"):
        with pytest.raises(ConnectionFailedError, match="default URI does not answer within 30 s"):
            async with open_hypervisor(None):
                pytest.fail("there is no connection")


async def test_a_question_without_an_answer_is_given_up(opened, monkeypatch):
    async with (
        open_hypervisor(None) as hypervisor,
        hanging(monkeypatch, Libvirt, "listAllDomains"),
    ):
        with pytest.raises(HypervisorError, match="list domains: libvirt does not answer within"):
            await hypervisor.domain_names()


@pytest.mark.parametrize(
    ("username", "passphrase", "prompts", "answers"),
    [
        ("me", "secret", ["user", "pass"], ["me", "secret"]),
        ("me", None, ["user"], ["me"]),
        (None, "secret", ["pass"], ["secret"]),
        ("me", None, ["user", "pass"], None),
        (None, "secret", ["user"], None),
        ("me", "secret", ["another"], None),
    ],
)
async def test_credentials_answer_what_libvirt_asks_for_and_nothing_else(
    opened, username, passphrase, prompts, answers
):
    kinds = {
        "user": libvirt.VIR_CRED_AUTHNAME,
        "pass": libvirt.VIR_CRED_PASSPHRASE,
        "another": libvirt.VIR_CRED_REALM,
    }
    async with open_hypervisor(URI, username=username, passphrase=passphrase):
        _, uri, (wanted, answer, _data), flags = opened.calls[-1]
    assert (uri, flags) == (URI, 0)
    assert set(wanted) == {kinds["user"], kinds["pass"]}
    asked = [[kinds[prompt], "prompt", None, None, None] for prompt in prompts]
    assert answer(asked, None) == (0 if answers else -1)
    if answers:
        assert [credential[4] for credential in asked] == answers


async def test_versions_are_split_as_libvirt_puts_them_together(opened):
    async with open_hypervisor(None) as hypervisor:
        versions = await hypervisor.versions()
    assert (versions.driver, versions.libvirt, versions.hypervisor) == (
        "QEMU",
        (9, 2, 13),
        (7, 2, 0),
    )


async def test_all_domains_are_listed_and_sorted(opened):
    async with open_hypervisor(None) as hypervisor:
        assert await hypervisor.domain_names() == ("db", "web")
    assert opened.handles[0].of("list") == [(0,)]


async def test_a_domain_is_found_by_name_and_by_uuid(opened):
    async with open_hypervisor(None) as hypervisor:
        by_name = await hypervisor.domain("db")
        assert (by_name.name, by_name.uuid) == ("db", UUID.format(2))
        by_uuid = await hypervisor.domain_by_uuid(UUID.format(1))
        assert (by_uuid.name, by_uuid.uuid) == ("web", UUID.format(1))


@pytest.mark.parametrize("find", ["domain", "domain_by_uuid"])
async def test_a_domain_that_libvirt_does_not_know_is_named(opened, find):
    async with open_hypervisor(None) as hypervisor:
        with pytest.raises(DomainNotFoundError, match=r"^nobody: look up: words"):
            await getattr(hypervisor, find)("nobody")


async def test_a_domain_is_defined_by_its_xml(opened):
    async with open_hypervisor(None) as hypervisor:
        domain = await hypervisor.define("<domain/>")
        assert (domain.name, domain.uuid) == ("new", UUID.format(3))
        opened.handles[0].refusals["define"] = REFUSED
        with pytest.raises(HypervisorError, match=r"^define the domain: words"):
            await hypervisor.define("<wrong/>")
    assert opened.handles[0].of("define") == [("<domain/>", 0), ("<wrong/>", 0)]


async def test_the_directories_of_state_follow_from_the_uri(opened):
    async with open_hypervisor(None) as hypervisor:
        base = Path("/var/lib/libvirt/qemu")
        assert await hypervisor.state_directories() == {base / "nvram", base / "varstore"}
        opened.handles[0].uri = "test:///default"
        assert await hypervisor.state_directories() == frozenset()
        opened.handles[0].refusals["getURI"] = REFUSED
        with pytest.raises(HypervisorError, match="read the connection's URI"):
            await hypervisor.state_directories()


async def test_a_broken_connection_is_opened_again_and_a_good_one_is_not(opened):
    async with open_hypervisor(None) as hypervisor:
        assert await hypervisor.is_alive()
        await hypervisor.reconnect()
        assert len(opened.handles) == 1
        opened.handles[0].alive = 0
        assert not await hypervisor.is_alive()
        await hypervisor.reconnect()
        assert len(opened.handles) == 2
        assert await hypervisor.is_alive()
    assert opened.handles[0].of("close") == opened.handles[1].of("close") == [()]


async def test_many_that_find_a_broken_connection_open_it_once(opened):
    async with open_hypervisor(None) as hypervisor:
        opened.handles[0].alive = 0
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(hypervisor.reconnect)
    assert len(opened.handles) == 2


@pytest.mark.parametrize("method", ["isAlive", "close"])
async def test_a_connection_that_fails_when_it_is_asked_or_closed_is_opened_again(opened, method):
    async with open_hypervisor(None) as hypervisor:
        opened.handles[0].alive = 0
        opened.handles[0].refusals[method] = LOST
        await hypervisor.reconnect()
    assert len(opened.handles) == 2


async def test_a_lookup_opens_a_lost_connection_again(opened):
    async with open_hypervisor(None) as hypervisor:
        opened.handles[0].alive, opened.handles[0].refusals["lookup"] = 0, LOST
        domain = await hypervisor.domain("web")
    assert domain.name == "web"
    assert [len(handle.of("lookup")) for handle in opened.handles] == [1, 1]


async def test_a_lookup_is_repeated_only_once(opened):
    async with open_hypervisor(None) as hypervisor:
        handle = opened.handles[0]
        handle.refusals["lookup"] = LOST
        opened.refusals = [REFUSED]
        handle.alive = 0
        with pytest.raises(ConnectionLostError, match=r"^web: look up: words"):
            await hypervisor.domain("web")
        with pytest.raises(ConnectionLostError, match="no connection to libvirt at its default"):
            await hypervisor.domain_names()
        assert not await hypervisor.is_alive()
        await hypervisor.reconnect()
        assert await hypervisor.domain_names() == ("db", "web")


async def test_a_connection_that_was_never_opened_is_lost():
    connection = Connection(URI, Libvirt)
    with pytest.raises(ConnectionLostError, match=re.escape(f"no connection to libvirt at {URI}")):
        _ = connection.handle
    await connection.close()
    assert not await connection.is_alive()


async def test_a_call_that_creates_something_is_not_abandoned_by_a_cancellation():
    """Its result would leak: the caller gets no chance to undo it."""
    connection = Connection(None, Libvirt)
    done = []

    def create():
        anyio.from_thread.run_sync(scope.cancel)
        done.append(True)

    with anyio.CancelScope() as scope:
        await connection.call(Attempt("web", "create"), create)
    assert done == [True]
