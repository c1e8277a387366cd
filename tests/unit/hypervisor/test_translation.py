import libvirt
import pytest

from virtbackup_async.errors import (
    ConnectionLostError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
    QuiesceError,
)
from virtbackup_async.hypervisor.translation import translate


class Said(libvirt.libvirtError):
    """libvirt's error with a code and a text of the test's choice."""

    def __init__(self, code, text):
        super().__init__("call failed")
        self.err = (code, libvirt.VIR_FROM_QEMU, text, 2, None, None, None, 0, 0)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, "Domain not found", DomainNotFoundError),
        (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", DomainGoneError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", ConnectionLostError),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot recv data: Connection reset", ConnectionLostError),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding", QuiesceError),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured", QuiesceError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "something else", HypervisorError),
    ],
)
def test_the_most_specific_error_is_given(code, text, kind):
    error = translate(Said(code, text), "web: try")
    assert type(error) is kind
    assert error.message.startswith("web: try: ")


def test_the_message_is_one_line():
    error = translate(Said(libvirt.VIR_ERR_INTERNAL_ERROR, "two\nlines \n of text.\n"), "x")
    assert error.message == "x: two lines of text"
