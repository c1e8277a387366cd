"""The value of ``target``: a directory, a URL, or a mapping of a URL and what goes with it.

Credentials never stand in a configuration, because it is copied into the target and shown in
messages: a value that seems to have some is refused, and not repeated.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from virtbackup_async.config.values import (
    Check,
    SecretValueError,
    WrongValueError,
    directory,
    flag,
    texts,
)
from virtbackup_async.model.storage_location import (
    BUCKET_KINDS,
    S3,
    SSH,
    URL_KINDS,
    StorageLocation,
)

_URL_BEGIN: Final = r"^[A-Za-z][A-Za-z0-9+.-]*://"
_BUCKET: Final = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
# No empty step, none of dots, and nothing that a URL takes for something else than a name.
_STEP: Final = r"(?!\.{1,2}(?:/|$))[^/\x00-\x20\x7f?#@\\]+"
_WORD: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HOST: Final = rf"(?:{_WORD}|\[[0-9A-Fa-f:.]+\])"
_PLACES: Final = {
    **dict.fromkeys(BUCKET_KINDS, rf"{_BUCKET}(?:/{_STEP})*"),
    SSH: rf"(?:{_WORD}@)?{_HOST}(?::[0-9]{{1,5}})?(?:/{_STEP})+",
}
_URL: Final = f"^(?:{'|'.join(f'{kind}://{_PLACES[kind]}' for kind in URL_KINDS)})/?$"
_CREDENTIALS: Final = (
    "credentials are not written here: give them in the environment, or name a profile of the AWS "
    "files with `profile`"
)
_SECRET: Final = re.compile("secret|token|passw|credential|access", re.IGNORECASE)
_EXAMPLE: Final = "s3://BUCKET, s3://BUCKET/PREFIX, or ssh://[USER@]HOST[:PORT]/DIRECTORY"
_NO_SECRET: Final = re.compile(rf"{SSH}://{_WORD}@[^@]*")
"""What a value with an ``@`` may be repeated for: the user's name on a host, without a password."""


def _matching(pattern: str, expected: str) -> Check:
    """Return the check for text of a pattern; the text is not repeated if it has an ``@``."""

    def check(value: object) -> str:
        if isinstance(value, str) and "@" in value and not _NO_SECRET.fullmatch(value):
            raise SecretValueError(_CREDENTIALS)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise WrongValueError(expected)
        return value

    return Check(check, {"type": "string", "pattern": pattern})


_url: Final = _matching(_URL, _EXAMPLE)
_word: Final = _matching(r"^[A-Za-z0-9._+-]+$", "a name")
_endpoint: Final = _matching(
    r"^https?://[A-Za-z0-9.\[\]:_-]+/?$", "the URL of a server, such as https://s3.example.org"
)

URL_KEY: Final = "url"
TARGET_KEYS: Final[Mapping[str, Check]] = {
    URL_KEY: _url,
    "endpoint": _endpoint,
    "region": _word,
    "profile": _word,
    "create_bucket": flag,
}
"""The keys of a mapping; all but the URL are fields of a StorageLocation."""


_OF_ALL: Final = frozenset({"endpoint"})
"""The keys that each kind of object store has; the others are those of S3."""


def _or_null(check: Check) -> Mapping[str, Any]:
    return {"anyOf": [check.schema, {"type": "null"}]}


_SCHEMA: Final = {
    "anyOf": [
        {**directory.schema, "not": {"pattern": _URL_BEGIN}},
        _url.schema,
        {
            "type": "object",
            "required": [URL_KEY],
            "additionalProperties": False,
            "properties": {
                URL_KEY: _url.schema,
                **{key: _or_null(check) for key, check in TARGET_KEYS.items() if key != URL_KEY},
            },
        },
    ]
}


def target_location(value: object) -> StorageLocation:
    """Return the location that the value of ``target`` names.

    Raises:
        WrongValueError: it names none; a SecretValueError if the value must not be repeated.
    """
    if isinstance(value, dict):
        return _of_mapping(value)
    if isinstance(value, str) and re.match(_URL_BEGIN, value):
        return _of_url(_url(value))
    path: Path = directory(value)
    return StorageLocation.of(path)


target: Final = Check(target_location, _SCHEMA)


def copy_targets(value: object) -> tuple[str, ...]:
    """Return the names of groups, the directories and the URLs that ``copies`` lists, each once.

    Raises:
        WrongValueError: it is no list of texts, or a URL is none that a target can have.
    """
    words: tuple[str, ...] = texts(value)
    for word in words:
        if re.match(_URL_BEGIN, word):
            _url(word)
    return words


copies: Final = Check(copy_targets, texts.schema)


def _of_mapping(value: Mapping[Any, Any]) -> StorageLocation:
    for key in value:
        if key not in TARGET_KEYS:
            if _SECRET.search(str(key)):
                raise SecretValueError(_CREDENTIALS)
            known = ", ".join(TARGET_KEYS)
            raise SecretValueError(f"unknown key {key!r:.40}, expected only {known}")
    if not isinstance(value.get(URL_KEY), str):
        raise SecretValueError(f"url is missing, expected {_EXAMPLE}")
    read: dict[str, Any] = {}
    for key, given in value.items():
        try:
            if given is not None:
                read[key] = TARGET_KEYS[key](given)
        except SecretValueError:
            raise
        except WrongValueError as error:
            raise SecretValueError(f"{key}: found {given!r:.60}, expected {error}") from error
    return _of_url(read.pop(URL_KEY), read)


def _of_url(url: str, options: Mapping[str, Any] | None = None) -> StorageLocation:
    kind, _, path = url.partition("://")
    if kind == SSH and options:
        raise SecretValueError(f"{', '.join(options)}: only a target in an object store has that")
    if kind in BUCKET_KINDS and kind != S3 and (foreign := [*(options or {}).keys() - _OF_ALL]):
        raise SecretValueError(f"{', '.join(sorted(foreign))}: only an s3:// target has that")
    return StorageLocation(kind, path.rstrip("/"), **options or {})
