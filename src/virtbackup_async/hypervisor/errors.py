"""The translation of libvirt's errors into the program's own.

It depends only on an error's code and on its domain, the part of libvirt that raised it. The text
can come from a guest's agent, so it is shown and never interpreted.
"""

from typing import NamedTuple

import libvirt

from virtbackup_async import errors

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
_REFUSED_HINT = "See libvirt's log, `journalctl -u libvirtd -u virtqemud`, and the domain's."
MAX_TEXT = 400


class Attempt(NamedTuple):
    """What is attempted, for the error if it fails: ``vm1``, ``snapshot``; None if of no domain."""

    domain: str | None
    doing: str


def translate(error: libvirt.libvirtError, what: Attempt) -> errors.HypervisorError:
    """Return the most specific error of a failed attempt."""
    reason, domain = f"{what.doing}: {one_line(error)}", what.domain
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return errors.DomainNotFoundError(reason, hint=errors.DOMAINS_HINT, domain=domain)
    if error.get_error_domain() in _TRANSPORTS and code in _TRANSPORT_CODES:
        hint = "Check that libvirt's daemon runs."
        return errors.ConnectionLostError(reason, hint=hint, domain=domain)
    if code in _AGENT_CODES:
        hint = "Start the agent in the guest, or set `quiesce: false`."
        return errors.QuiesceError(reason, hint=hint, domain=domain)
    return errors.CallRefusedError(reason, hint=_REFUSED_HINT, domain=domain)


def code_of(error: errors.HypervisorError) -> int | None:
    """Return libvirt's code of an error that :func:`translate` returned; None for others."""
    cause = error.__cause__
    return cause.get_error_code() if isinstance(cause, libvirt.libvirtError) else None


def one_line(error: libvirt.libvirtError) -> str:
    """Return libvirt's message on one line, truncated if long, without the final period."""
    said = (error.get_error_message() or str(error))[: 4 * MAX_TEXT]
    text = " ".join(said.split())
    return f"{text[:MAX_TEXT]}…" if len(text) > MAX_TEXT else text.rstrip(".")
