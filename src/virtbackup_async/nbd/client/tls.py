"""The certificates of an NBD client, in files named as QEMU and libvirt name them."""

import ssl
from pathlib import Path

from virtbackup_async.errors import NbdRefusedError
from virtbackup_async.nbd.protocol.export import AUTHORITY_FILE, Tls

CERTIFICATE_FILE = "client-cert.pem"
KEY_FILE = "client-key.pem"


def tls_from(directory: Path, server_name: str) -> Tls:
    """Read the authority, and the client's own certificate if there is one. Blocks.

    Args:
        directory: has ``ca-cert.pem``, and optionally ``client-cert.pem`` and ``client-key.pem``.
        server_name: the name in the server's certificate.

    Raises:
        NbdRefusedError: a file is missing or is no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=directory / AUTHORITY_FILE)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if (directory / CERTIFICATE_FILE).exists():
            context.load_cert_chain(directory / CERTIFICATE_FILE, directory / KEY_FILE)
    except OSError as error:  # an SSLError is one
        raise NbdRefusedError(
            f"certificates in {directory} cannot be used: {error.strerror or error}",
            hint=f"It must hold {AUTHORITY_FILE}.",
        ) from error
    return Tls(context, server_name)
