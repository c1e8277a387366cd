"""What a target needs, so that a host may add backups to it and remove none: `config protect`.

Two roles: the *writer*, a host that is backed up, and the *keeper*, another machine, which cleans.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.storage_location import SSH, StorageLocation

_S3: Final = "s3"
_ARN: Final = "arn:aws:s3:::"
_INTERNAL: Final = ".virtbackup-repository"
_SSH_ROLES: Final = (
    "# Into ~{user}/.ssh/authorized_keys on {host}, a line for each host that is backed up:",
    "# it may list, read and add files, and remove none but its own leases.",
    "{writer}",
    "",
    "# The keeper, another machine, may do anything in the directory:",
    "{keeper}",
)
_VERSIONS: Final = (
    "# The bucket needs versions (PutBucketVersioning), or a default retention (Object Lock):",
    "# an object can be put over another one, and then its older version is the good one.",
    "# Versions of removed objects take space until a rule of the bucket removes them",
    "# (PutBucketLifecycleConfiguration); as long as an object is locked, no rule does.",
)
_EXPIRY_DAYS: Final = 30


def role_lines(target: StorageLocation, quota: str | None, keys: Sequence[str]) -> list[str]:
    """Return what to write where, as lines with comments.

    Args:
        target: on a host, or in an object store.
        quota: of each writer, as ``store-server --quota`` takes it.
        keys: the public keys of the writer and of the keeper.

    Raises:
        ConfigError: a directory of this machine has no roles.
    """
    if target.kind == SSH:
        return _ssh_lines(target, quota, keys)
    if target.kind == _S3:
        return _s3_lines(target)
    raise ConfigError(
        f"target {target} has no roles: who may write to a directory can remove what is in it",
        hint="Name a target ssh://HOST/DIRECTORY or s3://BUCKET/PREFIX.",
    )


def _ssh_lines(target: StorageLocation, quota: str | None, keys: Sequence[str]) -> list[str]:
    login, _, directory = target.path.partition("/")
    user, _, host = login.rpartition("@")
    writer = ["--append-only", *(("--quota", quota) if quota else ())]
    roles = zip(("writer", "keeper"), (writer, []), keys, strict=True)
    lines = {role: _authorized(options, f"/{directory}", key) for role, options, key in roles}
    words = {"{user}": user or "USER", "{host}": host.partition(":")[0]}
    words |= {f"{{{role}}}": line for role, line in lines.items()}
    return [_filled(line, words) for line in _SSH_ROLES]


def _filled(line: str, words: Mapping[str, str]) -> str:
    if line in words:
        return words[line]
    for mark, word in words.items():
        line = line.replace(mark, word)
    return line


def _authorized(options: Sequence[str], directory: str, key: str) -> str:
    command = shlex.join(["virtbackup", "store-server", *options, "--", directory])
    escaped = command.replace("\\", "\\\\").replace('"', '\\"')
    return f'restrict,command="{escaped}" {key}'


def _s3_lines(target: StorageLocation) -> list[str]:
    bucket, _, prefix = target.path.partition("/")
    below = f"{bucket}/{prefix}/" if prefix else f"{bucket}/"
    reading = _reading(bucket, prefix, below)
    adding = [*reading, *_adding(below)]
    return [
        "# AWS: the policy of the writer's user. What it denies without a condition can only be",
        "# added, never replaced.",
        _policy([*adding, _conditional(below)]),
        "",
        "# MinIO, Ceph, SeaweedFS: the same without the condition, which they do not know.",
        "# SeaweedFS takes it as a managed policy (CreatePolicy, AttachUserPolicy).",
        _policy(adding),
        "",
        "# The policy of the keeper's user.",
        _policy([*reading, _keeping(below)]),
        "",
        *_VERSIONS,
        json.dumps(_lifecycle(prefix), indent=2),
    ]


def _policy(statements: Sequence[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=2)


def _reading(bucket: str, prefix: str, below: str) -> list[dict[str, Any]]:
    listing: dict[str, Any] = {
        "Sid": "List",
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
        "Resource": f"{_ARN}{bucket}",
    }
    if prefix:
        listing["Action"] = "s3:ListBucket"
        listing["Condition"] = {"StringLike": {"s3:prefix": [prefix, f"{prefix}/*"]}}
    return [
        listing,
        {
            "Sid": "Lock",
            "Effect": "Allow",
            "Action": "s3:GetBucketObjectLockConfiguration",
            "Resource": f"{_ARN}{bucket}",
        },
        {
            "Sid": "Read",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": f"{_ARN}{below}*",
        },
    ]


def _adding(below: str) -> list[dict[str, Any]]:
    return [
        {
            "Sid": "Add",
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": f"{_ARN}{below}*",
        },
        {
            "Sid": "Leases",
            "Effect": "Allow",
            "Action": "s3:DeleteObject",
            "Resource": f"{_ARN}{below}{_INTERNAL}/leases/*",
        },
        {
            "Sid": "KeepersNames",
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": [
                f"{_ARN}{below}{name}"
                for name in (
                    f"{_INTERNAL}/condemned",
                    f"{_INTERNAL}/damaged",
                    f"{_INTERNAL}/leases/sweep",
                    "*.json.removed",
                )
            ],
        },
    ]


def _conditional(below: str) -> dict[str, Any]:
    names = (f"{_INTERNAL}/packs/*", f"{_INTERNAL}/repository", "*.json", ".virtbackup-trial.*")
    return {
        "Sid": "NeverReplace",
        "Effect": "Deny",
        "Action": "s3:PutObject",
        "Resource": [f"{_ARN}{below}{name}" for name in names],
        "Condition": {"Null": {"s3:if-none-match": "true"}},
    }


def _keeping(below: str) -> dict[str, Any]:
    return {
        "Sid": "Keep",
        "Effect": "Allow",
        "Action": [
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
            "s3:GetObjectRetention",
            "s3:PutObjectRetention",
        ],
        "Resource": f"{_ARN}{below}*",
    }


def _lifecycle(prefix: str) -> dict[str, Any]:
    """Return a rule that removes versions once nobody can want them back any more."""
    rule = {
        "ID": "virtbackup-removed-files",
        "Status": "Enabled",
        "Filter": {"Prefix": f"{prefix}/" if prefix else ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": _EXPIRY_DAYS},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    return {"Rules": [rule]}
