"""The translation of libvirt's errors into the program's own.

It depends only on an error's code and on its domain, the part of libvirt that raised it. The text
can come from a guest's agent, so it is shown and never interpreted.
"""

import libvirt

from virtbackup_async.errors import (
    ConnectionLostError,
    DomainNotFoundError,
    HypervisorError,
    QuiesceError,
)

_AGENT_CODES = frozenset({libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED})
# libvirt has no error code for a broken connection. These domains are the client's transport, so
# no driver, and no guest, can raise an error in their name.
_TRANSPORTS = frozenset(
    {
        libvirt.VIR_FROM_RPC,
        libvirt.VIR_FROM_REMOTE,
        libvirt.VIR_FROM_SSH,
        libvirt.VIR_FROM_LIBSSH,
    }
)
_TRANSPORT_CODES = frozenset(
    {
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_GNUTLS_ERROR,
        libvirt.VIR_ERR_SSH,
        libvirt.VIR_ERR_LIBSSH,
    }
)
MAX_TEXT = 400


def translate(error: libvirt.libvirtError, what: str) -> HypervisorError:
    """Return the most specific error; ``what`` is the attempt, and begins the message."""
    message = f"{what}: {one_line(error)}"
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainNotFoundError(message)
    if error.get_error_domain() in _TRANSPORTS and code in _TRANSPORT_CODES:
        return ConnectionLostError(message, hint="Check that libvirt's daemon runs.")
    if code in _AGENT_CODES:
        return QuiesceError(message)
    return HypervisorError(message)


def code_of(error: HypervisorError) -> int | None:
    """Return libvirt's code of an error that :func:`translate` returned; None for others."""
    cause = error.__cause__
    return cause.get_error_code() if isinstance(cause, libvirt.libvirtError) else None


def one_line(error: libvirt.libvirtError) -> str:
    """Return libvirt's message on one line, truncated if long, without the final period."""
    said = (error.get_error_message() or str(error))[: 4 * MAX_TEXT]
    text = " ".join(said.split())
    return f"{text[:MAX_TEXT]}…" if len(text) > MAX_TEXT else text.rstrip(".")
