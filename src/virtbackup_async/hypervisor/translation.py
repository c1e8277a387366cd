"""libvirt's errors into ours, at the one place where they cross into this program."""

import libvirt

from virtbackup_async.errors import (
    ConnectionLostError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
    QuiesceError,
)

_AGENT_CODES = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_AGENT_UNSYNCED,
    }
)
# libvirt has no code of its own for a broken connection: these texts of its RPC client are stable.
_LOST_TEXTS = (
    "client socket is closed",
    "connection closed",
    "cannot recv data",
    "cannot write data",
    "end of file while reading data",
    "broken pipe",
    "connection reset",
)
_NOT_RUNNING_TEXTS = ("domain is not running", "domain is no longer running", "domain not running")


def translate(error: libvirt.libvirtError, what: str) -> HypervisorError:
    """Give the most specific error of ours; ``what`` is what was tried, to lead the message."""
    text = one_line(error)
    message = f"{what}: {text}"
    lowered = text.lower()
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainNotFoundError(message)
    if any(lost in lowered for lost in _LOST_TEXTS):
        return ConnectionLostError(message, hint="Check that libvirt's daemon runs.")
    if any(stopped in lowered for stopped in _NOT_RUNNING_TEXTS):
        return DomainGoneError(message)
    if code in _AGENT_CODES or "guest agent" in lowered:
        return QuiesceError(message)
    return HypervisorError(message)


def one_line(error: libvirt.libvirtError) -> str:
    """Return libvirt's message on one line, without the final period."""
    return " ".join((error.get_error_message() or str(error)).split()).rstrip(".")
