"""libvirt's errors into ours: by code and domain, never by what a text says."""

import libvirt
import pytest

from virtbackup_async.errors import (
    CallRefusedError,
    ConnectionLostError,
    DomainNotFoundError,
    HypervisorError,
    QuiesceError,
)
from virtbackup_async.hypervisor.errors import MAX_TEXT, Attempt, code_of, translate

CODES = {name: getattr(libvirt, name) for name in dir(libvirt) if name.startswith("VIR_ERR_")}
LEVELS = {"VIR_ERR_NONE", "VIR_ERR_WARNING", "VIR_ERR_ERROR"}
DOMAINS = {name: getattr(libvirt, name) for name in dir(libvirt) if name.startswith("VIR_FROM_")}
HOSTILE = (
    "client socket is closed",
    "connection closed",
    "cannot recv data: Connection reset by peer",
    "End of file while reading data",
    "broken pipe",
    "domain is not running",
    "domain is no longer running",
    "the guest agent says: Domain not found",
    "unable to execute QEMU agent command 'guest-fsfreeze-freeze': job not ready for pivot yet",
    "another backup job, or a migration, runs",
)


class Said(libvirt.libvirtError):
    """libvirt's error with a code, a text and a domain of the test's choice."""

    def __init__(self, code, text, domain=libvirt.VIR_FROM_QEMU):
        super().__init__("call failed")
        self.err = (code, domain, text, 2, None, None, None, 0, 0)


@pytest.mark.parametrize(
    ("code", "domain", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, DomainNotFoundError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, ConnectionLostError),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, ConnectionLostError),
        (libvirt.VIR_ERR_RPC, libvirt.VIR_FROM_RPC, CallRefusedError),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_QEMU, CallRefusedError),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_FROM_QEMU, QuiesceError),
        (libvirt.VIR_ERR_AGENT_UNSYNCED, libvirt.VIR_FROM_QEMU, QuiesceError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, CallRefusedError),
    ],
)
def test_the_most_specific_error_is_given(code, domain, kind):
    error = translate(Said(code, "any words", domain), Attempt("web", "try"))
    assert type(error) is kind
    assert error.message == "web: try: any words"


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_text_decides_what_an_error_is(domain):
    """A text may hold what a guest's agent said, whatever the code and the domain are."""
    for name, code in CODES.items():
        neutral = translate(Said(code, "x", DOMAINS[domain]), Attempt("web", "try"))
        for text in HOSTILE:
            error = translate(Said(code, text, DOMAINS[domain]), Attempt("web", "try"))
            assert type(error) is type(neutral), (name, text)
    assert len(CODES) > 100
    assert set(CODES) > LEVELS


def test_the_message_is_one_line():
    error = translate(
        Said(libvirt.VIR_ERR_INTERNAL_ERROR, "two\nlines \n of text.\n"), Attempt(None, "x")
    )
    assert error.message == "x: two lines of text"


def test_a_guest_that_talks_on_and_on_is_cut_short():
    error = translate(Said(libvirt.VIR_ERR_INTERNAL_ERROR, "blah " * (1 << 20)), Attempt(None, "x"))
    assert len(error.message) < MAX_TEXT + 10
    assert error.message.endswith("…")


def test_the_code_is_known_where_libvirt_gave_one():
    error = translate(Said(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "later"), Attempt(None, "x"))
    error.__cause__ = Said(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "later")
    assert code_of(error) == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
    assert code_of(HypervisorError("of ours")) is None
