"""The policies that `config protect` prints, put into force: by SeaweedFS itself, or by a proxy.

SeaweedFS has users and policies (its IAM interface), but does not know the condition
``s3:if-none-match``. The proxy decides by what AWS documents of the parts that the policies use:
an explicit denial wins, an allowance is needed, ``Null`` asks whether a key is missing.
"""

import json
import re
import secrets
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from faults.lossy_proxy import Answer
from object_server import KEYS
from virtbackup_async.engine.setup.target_roles import role_lines
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.objects.signing import Keys, SignedRequest, sign

Policy = dict[str, Any]
_ACCOUNT = "000000000000"


def printed_policies(place: StorageLocation) -> list[Policy]:
    """The policies of AWS's writer, of other stores' writer, and of the keeper, as printed."""
    text = "\n".join(role_lines(place, None, ["", ""]))
    decoder, found, at = json.JSONDecoder(), [], 0
    while (at := text.find("\n{", at)) >= 0:
        policy, at = decoder.raw_decode(text, at + 1)
        found.append(policy)
    return [policy for policy in found if "Statement" in policy]


def new_user(endpoint: str, policy: Policy) -> tuple[str, str]:
    """Make a user of SeaweedFS with a managed policy; return its keys."""
    name = f"user-{secrets.token_hex(4)}"
    _iam(endpoint, "CreateUser", UserName=name)
    keys = _iam(endpoint, "CreateAccessKey", UserName=name)
    _iam(endpoint, "CreatePolicy", PolicyName=name, PolicyDocument=json.dumps(policy))
    arn = f"arn:aws:iam::{_ACCOUNT}:policy/{name}"
    _iam(endpoint, "AttachUserPolicy", UserName=name, PolicyArn=arn)
    return _word(keys, "AccessKeyId"), _word(keys, "SecretAccessKey")


def judged_by(policy: Policy) -> Callable[[str, str, Mapping[str, str]], Answer | None]:
    """What a proxy asks of each request: None if the policy allows it."""

    def judge(method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        action, resource, facts = _asked(method, path, headers)
        return None if is_allowed(policy, action, resource, facts) else Answer(403, "AccessDenied")

    return judge


def is_allowed(policy: Policy, action: str, resource: str, facts: Mapping[str, str]) -> bool:
    """Whether a policy allows an action on a resource."""
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if any(fnmatchcase(action, word) for word in _words(statement["Action"]))
        and any(fnmatchcase(resource, word) for word in _words(statement["Resource"]))
        and all(
            _holds(operator, keys, facts)
            for operator, keys in statement.get("Condition", {}).items()
        )
    }
    return effects == {"Allow"}


def _holds(operator: str, keys: Mapping[str, Any], facts: Mapping[str, str]) -> bool:
    if operator == "Null":
        return all((key not in facts) is (word == "true") for key, word in keys.items())
    assert operator == "StringLike"
    return all(
        key in facts and any(fnmatchcase(facts[key], word) for word in _words(words))
        for key, words in keys.items()
    )


def _words(value: str | list[str]) -> Iterator[str]:
    yield from [value] if isinstance(value, str) else value


_OF_OBJECTS = {
    ("GET", ""): "s3:GetObject", ("HEAD", ""): "s3:GetObject", ("PUT", ""): "s3:PutObject",
    ("DELETE", ""): "s3:DeleteObject", ("GET", "retention"): "s3:GetObjectRetention",
    ("PUT", "retention"): "s3:PutObjectRetention", ("POST", "uploads"): "s3:PutObject",
    ("PUT", "uploadId"): "s3:PutObject", ("POST", "uploadId"): "s3:PutObject",
    ("DELETE", "uploadId"): "s3:AbortMultipartUpload",
}  # fmt: skip
_OF_BUCKETS = {
    ("GET", "list-type"): "s3:ListBucket", ("HEAD", ""): "s3:ListBucket",
    ("GET", "object-lock"): "s3:GetBucketObjectLockConfiguration",
}  # fmt: skip


def _asked(
    method: str, path: str, headers: Mapping[str, str]
) -> tuple[str, str, Mapping[str, str]]:
    """Return the action, the resource and the facts of a request."""
    at = urlsplit(path)
    query = parse_qs(at.query, keep_blank_values=True)
    bucket, _, name = unquote(at.path.lstrip("/")).partition("/")
    actions = _OF_OBJECTS if name else _OF_BUCKETS
    word = next((word for verb, word in actions if verb == method and word in query), "")
    facts = {"s3:prefix": query["prefix"][0]} if "prefix" in query else {}
    if "if-none-match" in headers:
        facts["s3:if-none-match"] = headers["if-none-match"]
    resource = f"arn:aws:s3:::{bucket}/{name}" if name else f"arn:aws:s3:::{bucket}"
    return actions[method, word], resource, facts


def _iam(endpoint: str, action: str, **words: str) -> str:
    at = urlsplit(endpoint)
    form = {"Action": action, "Version": "2010-05-08", **words}
    kind = {"content-type": "application/x-www-form-urlencoded"}
    request = SignedRequest("POST", at.netloc, "/", "", urlencode(form).encode(), kind)
    headers = sign(request, Keys(*KEYS, "us-east-1"), datetime.now(UTC))
    sent = urllib.request.Request(f"{endpoint}/", request.body, headers)  # noqa: S310
    with urllib.request.urlopen(sent, timeout=20) as answer:  # noqa: S310
        text: str = answer.read().decode()
    return text


def _word(text: str, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text)
    assert found, text
    return found[1]
