"""Signs a request to an S3 store by Signature Version 4: pure.

The library signs its own calls, and has none for Object Lock. `AWS's page
<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>`_ has the steps.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

from msgspec import Struct

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Keys(Struct, frozen=True):
    """The credentials of a request; ``token`` is that of a session, if they belong to one."""

    access: str
    secret: str
    region: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(...)"  # no traceback shows them


class SignedRequest(Struct, frozen=True):
    """A request to sign.

    Attributes:
        method: of HTTP.
        host: with its port, if that is not the usual one.
        path: begins with ``/``; not quoted.
        query: its only word, without a value: ``retention``; empty for none.
        body: the content.
        headers: further headers, with names in lower case.
    """

    method: str
    host: str
    path: str
    query: str
    body: bytes = b""
    headers: Mapping[str, str] = {}

    @property
    def quoted_path(self) -> str:
        """The path as a URL has it."""
        return quote(self.path, safe="/~")


def sign(request: SignedRequest, keys: Keys, at: datetime) -> dict[str, str]:
    """Return the headers of a request; ``at`` is now, in UTC."""
    stamp = f"{at:%Y%m%dT%H%M%SZ}"
    content = hashlib.sha256(request.body).hexdigest()
    headers = {
        **request.headers,
        "host": request.host,
        "x-amz-content-sha256": content,
        "x-amz-date": stamp,
    }
    if keys.token is not None:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    query = f"{quote(request.query, safe='~')}=" if request.query else ""
    lines = [request.method, request.quoted_path, query]
    lines += [f"{name}:{headers[name].strip()}" for name in sorted(headers)]
    lines += ["", names, content]
    canonical = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    scope = f"{at:%Y%m%d}/{keys.region}/s3/aws4_request"
    key = f"AWS4{keys.secret}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    text = "\n".join([_ALGORITHM, stamp, scope, canonical])
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return headers
