"""``Connection.call``, ``call_running``: what becomes of libvirt's errors, and the binding's."""

import libvirt
import pytest

from virtbackup_async.errors import (
    CallRefusedError,
    ConnectionLostError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
)
from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.errors import Attempt


def said(code, domain=libvirt.VIR_FROM_QEMU):
    error = libvirt.libvirtError("call failed")
    error.err = (code, domain, "words", 2, None, None, None, 0, 0)
    return error


class Handle:
    """libvirt's domain: whether it runs, or what it says when it is asked."""

    def __init__(self, active):
        self.active = active

    def isActive(self):  # noqa: N802 -- libvirt's name
        if isinstance(self.active, Exception):
            raise self.active
        return self.active


def failing(error):
    def act():
        raise error

    return act


@pytest.fixture
def connection():
    return Connection(None, lambda: None)


ANY = said(libvirt.VIR_ERR_OPERATION_FAILED)
LOST = said(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)
UNKNOWN = said(libvirt.VIR_ERR_NO_DOMAIN)


@pytest.mark.parametrize(
    ("error", "active", "kind"),
    [
        (ANY, 1, CallRefusedError),
        (ANY, 0, DomainGoneError),
        (ANY, UNKNOWN, DomainGoneError),
        (ANY, LOST, ConnectionLostError),
        (LOST, 1, ConnectionLostError),
        (UNKNOWN, 1, DomainNotFoundError),
    ],
)
async def test_a_domain_that_is_gone_is_asked_for(connection, error, active, kind):
    with pytest.raises(HypervisorError) as raised:
        await connection.call_running(Attempt("web", "try"), Handle(active), failing(error))
    assert type(raised.value) is kind
    assert raised.value.message.startswith("web: try: ")


async def test_an_answer_that_the_binding_cannot_read_is_an_error_like_others(connection):
    with pytest.raises(CallRefusedError, match="web: try: libvirt's error cannot be read"):
        await connection.call(
            Attempt("web", "try"), failing(SystemError("returned a result with an error"))
        )
