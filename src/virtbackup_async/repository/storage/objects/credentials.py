"""Finds the credentials of an S3 store: in the environment, or in the files of AWS's own tools.

::

    profile set                    that section of the files, nothing else
    AWS_ACCESS_KEY_ID set          the environment, as the library reads it
    a section "default"            of the files
    otherwise                      what a machine in the provider's cloud is given, only if the
                                   target has no endpoint of its own

The files are ``~/.aws/credentials`` and ``~/.aws/config``, or those that
``AWS_SHARED_CREDENTIALS_FILE`` and ``AWS_CONFIG_FILE`` name. Nothing that is read here is ever
shown: the values go to the library alone.
"""

import configparser
import os
from pathlib import Path
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import storage_error

_KEYS: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
_SECRET: Final = frozenset({"access_key_id", "secret_access_key"})
_OF_OTHERS: Final = 0o007
_OF_THE_CLOUD: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


def s3_options(where: str, profile: str | None, *, has_endpoint: bool) -> dict[str, str]:
    """Return the options for the library that the AWS files give; none if the environment does.

    Args:
        where: the name of the target in messages.
        profile: the section that the target names.
        has_endpoint: whether the target has a server of its own, not AWS.

    Raises:
        StorageError: there are no credentials, or their file cannot be read.
    """
    if profile is None and os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    section = profile or os.environ.get("AWS_PROFILE") or "default"
    found = _read(_file("AWS_CONFIG_FILE", "config"), f"profile {section}", section)
    found |= _read(_file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), section)
    if found.keys() >= _SECRET:
        return found
    if profile is not None:
        raise StorageError(
            f"cannot open {where}: profile {profile!r} has no credentials",
            hint="Write aws_access_key_id and aws_secret_access_key into ~/.aws/credentials.",
        )
    if has_endpoint and not any(map(os.environ.get, _OF_THE_CLOUD)):
        raise StorageError(
            f"cannot open {where}: no credentials",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `profile` of the target.",
        )
    return {key: value for key, value in found.items() if key not in _SECRET}


def _file(variable: str, name: str) -> Path:
    named = os.environ.get(variable)
    return Path(named) if named else Path("~/.aws").expanduser() / name


def _read(path: Path, *sections: str) -> dict[str, str]:
    """Return what the first of some sections that is there says."""
    parser = configparser.RawConfigParser()
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & _OF_OTHERS:
                raise StorageError(
                    f"{path} can be read by everybody on this host",
                    hint=f"Run `chmod 600 {path}`.",
                )
            parser.read_file(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise storage_error("read", path, error) from error
    except (configparser.Error, UnicodeDecodeError):
        # Its own message would quote a line of the file.
        raise StorageError(
            f"{path} cannot be understood", hint="`aws configure` writes such a file."
        ) from None
    for section in sections:
        if parser.has_section(section):
            items = dict(parser.items(section))
            return {_KEYS[key]: value for key, value in items.items() if key in _KEYS}
    return {}
