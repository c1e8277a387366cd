"""The failures of an object store's calls: how each is to be answered, and how people read it.

The library gives most errors one class, and their facts only as text: the status of the answer and
the code that the store gave it. This module alone reads that text. Nothing of it reaches a message
but the code, which is a word: an answer can come from anybody.
"""

import re
from enum import Enum
from typing import Final, NamedTuple

from obstore import exceptions

from virtbackup_async.errors import StorageError, StorageFullError


class Outcome(Enum):
    """How a failed call is to be answered."""

    MISSING = "the object is missing"
    TAKEN = "the name is taken, or another call for it was under way"
    CHANGED = "the object is no longer the one that was named"
    UNKNOWN_WAY = "the store does not have this kind of call"
    EMPTY_RANGE = "the object ends before the range"
    NO_BUCKET = "the bucket is missing"
    PASSING = "another try can succeed"
    FINAL = "another try fails as well"


class Failure(NamedTuple):
    """A failed call.

    Attributes:
        outcome: what to do about it.
        error: for people, if nothing can be done.
    """

    outcome: Outcome
    error: StorageError


_STATUS: Final = re.compile(r"status code: ([0-9]{3})\b")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_ADDRESS: Final = re.compile(r"https?://\S+")
_OK: Final = range(200, 300)

_KEYS: Final = (
    "the store refuses the credentials",
    "Check these credentials: the keys in the environment, or in the AWS profile.",
)
_RIGHTS: Final = (
    "the store denies access",
    "Allow these credentials to list, read, write and delete objects in the bucket.",
)
_CLOCK: Final = (
    "the clocks of this host and of the store differ",
    "Set this host's clock; `timedatectl` shows whether it is synchronized.",
)
_BUCKET: Final = (
    "the bucket is missing",
    "Make the bucket, or set `create_bucket: true` for the target.",
)
_NAME: Final = ("the store refuses the bucket's name", "Check the URL of the target.")
_REGION: Final = (
    "the bucket is in another region",
    "Set `region` of the target to the region of the bucket.",
)
_WORDS: Final[dict[str, tuple[str, str]]] = {
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "InvalidToken": _KEYS,
    "ExpiredToken": _KEYS,
    "TokenRefreshRequired": _KEYS,
    "InvalidSecurity": _KEYS,
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "AccountProblem": _RIGHTS,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "NoSuchBucket": _BUCKET,
    "ContainerNotFound": _BUCKET,
    "AuthenticationFailed": _KEYS,
    "AuthorizationFailure": _RIGHTS,
    "AuthorizationPermissionMismatch": _RIGHTS,
    "InvalidBucketName": _NAME,
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
}
_STATUS_WORDS: Final = {301: _REGION, 307: _REGION, 401: _KEYS, 403: _RIGHTS}
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"})
_PASSING_CODES: Final = frozenset(
    {"SlowDown", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict",
     "InternalError", "ServiceUnavailable", "BadDigest", "IncompleteBody",
     "XAmzContentSHA256Mismatch"}
)  # fmt: skip
_PASSING_STATUS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})

_REACH: Final = "Check the endpoint of the target, and the network between this host and it."
_NO_ANSWER: Final = (
    # A text of the library's errors without an answer, and what people read. The first fits.
    ("InvalidCertificate", "its TLS certificate is not trusted",
     "Install the certificate of its authority on this host, or correct the endpoint."),
    ("InvalidContentType", "it does not speak TLS",
     "Write the endpoint with http:// if the network to it is safe."),
    ("dns error", "its name is unknown", _REACH),
    ("TimedOut", "it does not answer in time", _REACH),
    ("Timeout", "it does not answer in time", _REACH),
    ("Connect,", "no connection", _REACH),
)  # fmt: skip
_TLS: Final = frozenset({"InvalidCertificate", "InvalidContentType"})


def failure_of(error: Exception, doing: str, where: str) -> Failure:
    """Return the failure that an error of the library stands for.

    Args:
        error: it.
        doing: the action that failed, as a verb: ``write``, ``read``.
        where: the name of the object in messages.
    """
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else None
    code = found[1] if (found := _CODE.search(text)) else None
    start = f"cannot {doing} {where}"
    if code in {"NoSuchBucket", "ContainerNotFound"}:
        return Failure(Outcome.NO_BUCKET, _in_words(start, _BUCKET, code))
    for kind, outcome in _OUTCOMES:
        if isinstance(error, kind):
            return Failure(outcome, StorageError(f"{start}: {outcome.value}"))
    if status == 416 or "Invalid range" in text:  # noqa: PLR2004 -- the range is not satisfiable
        return Failure(Outcome.EMPTY_RANGE, StorageError(f"{start}: it ends before that"))
    if status is None or status in _OK:
        return _without_answer(text, start)
    if status == 501 or code == "NotImplemented":  # noqa: PLR2004
        return Failure(Outcome.UNKNOWN_WAY, StorageError(f"{start}: the store cannot do that"))
    return _answered(status, code, start)


_OUTCOMES: Final[tuple[tuple[type[Exception], Outcome], ...]] = (
    (FileNotFoundError, Outcome.MISSING),
    (exceptions.AlreadyExistsError, Outcome.TAKEN),
    (exceptions.PreconditionError, Outcome.CHANGED),
    (exceptions.NotSupportedError, Outcome.UNKNOWN_WAY),
    (NotImplementedError, Outcome.UNKNOWN_WAY),
)


def _answered(status: int, code: str | None, start: str) -> Failure:
    if code in _FULL or status == 507:  # noqa: PLR2004 -- insufficient storage
        message = f"no space left: {start}: {code or status}"
        hint = "Raise the quota of the store, or remove old backups."
        return Failure(Outcome.FINAL, StorageFullError(message, hint=hint))
    words = _WORDS.get(code or "") or _STATUS_WORDS.get(status)
    if words is not None and code not in _PASSING_CODES:
        return Failure(Outcome.FINAL, _in_words(start, words, code))
    is_passing = status in _PASSING_STATUS or code in _PASSING_CODES
    answer = f"{status} ({code})" if code else str(status)
    error = StorageError(
        f"{start}: the store answers {answer}",
        hint="Look into the log of the store, or at the status page of its provider.",
    )
    return Failure(Outcome.PASSING if is_passing else Outcome.FINAL, error)


def _without_answer(text: str, start: str) -> Failure:
    text = _ADDRESS.sub("", text)  # which has names of files, and they may be anything
    if "Received redirect" in text:
        return Failure(Outcome.FINAL, _in_words(start, _REGION, None))
    for sign, reason, hint in _NO_ANSWER:
        if sign in text:
            outcome = Outcome.FINAL if sign in _TLS else Outcome.PASSING
            message = f"{start}: cannot reach the store: {reason}"
            return Failure(outcome, StorageError(message, hint=hint))
    message = f"{start}: the answer of the store was cut off or cannot be understood"
    return Failure(Outcome.PASSING, StorageError(message, hint=_REACH))


def _in_words(start: str, words: tuple[str, str], code: str | None) -> StorageError:
    reason, hint = words
    return StorageError(f"{start}: {reason}" + (f" ({code})" if code else ""), hint=hint)
