"""Opens the storage of a target in an object store, by its URL: S3, GCS or Azure.

``s3://BUCKET/PREFIX`` is tested with SeaweedFS. ``gs://BUCKET/PREFIX`` and ``az://CONTAINER/PREFIX``
go through the same library and the same calls, with credentials from the environment alone
(``GOOGLE_…``, ``AZURE_…``). The tests do not cover them; docs/how-to/object-stores.md says more.
"""

import os
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Any, Final
from xml.sax.saxutils import escape

import obstore
from blake3 import blake3
from msgspec.structs import replace
from obstore.store import AzureStore, GCSStore, S3Store

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import S3, StorageLocation
from virtbackup_async.repository.storage.objects.credentials import s3_options
from virtbackup_async.repository.storage.objects.requests import (
    Answer,
    Client,
    Connection,
    Patience,
)
from virtbackup_async.repository.storage.objects.storage import ObjectStorage
from virtbackup_async.repository.storage.objects.traffic import Count, Traffic, sum_of

_CONNECT_S: Final = 10.0
_NO_TRIES: Final = {"max_retries": 0}
_DEFAULT_REGION: Final = "us-east-1"
# The class of a store, and what it calls its endpoint.
_STORES: Final[dict[str, tuple[Any, str]]] = {
    "gs": (GCSStore, "base_url"),
    "az": (AzureStore, "endpoint"),
}
_CONFLICT: Final = 409
_MOST_OPEN: Final = 8
_PREFIXES: Final = ("AWS_", "AZURE_", "GOOGLE_", "VIRTBACKUP_CACHE_")
_opened: Final[OrderedDict[tuple[StorageLocation, str], ObjectStorage]] = OrderedDict()
_traffic: Final[dict[str, list[Traffic]]] = {}
_turn: Final = Lock()


def open_object_storage(
    location: StorageLocation, patience: Patience | None = None
) -> ObjectStorage:
    """Return the storage at a location. Blocks for no request: the first call shows more.

    Args:
        location: of the target.
        patience: how long calls wait and are tried again.

    Raises:
        StorageError: the URL names no bucket, or there are no credentials.
    """
    bucket, _, prefix = location.path.rstrip("/").partition("/")
    if not bucket:
        raise StorageError(
            f"target {location} names no bucket",
            hint="A target is s3://BUCKET or s3://BUCKET/PATH.",
        )
    if location.kind == S3:
        return ObjectStorage(location, _s3(completed(location), bucket, prefix), patience)
    kind, endpoint_key = _STORES[location.kind]
    endpoint = location.endpoint or "https:"
    config = {} if location.endpoint is None else {endpoint_key: location.endpoint}
    make = partial(kind, bucket, prefix=prefix or None, config=config, retry_config=_NO_TRIES)
    return ObjectStorage(
        location,
        Connection(lambda most, step: make(client_options=_options(most, step, endpoint))),
        patience,
    )


def shared_object_storage(location: StorageLocation) -> ObjectStorage:
    """Return the storage at a location that this process has open already, or open it.

    A run opens a target many times: its connections, what it knows of the store and its counts of
    requests are shared. With other credentials it is another one.

    Raises:
        StorageError: as ``open_object_storage``.
    """
    key = (location, _environment(location))
    with _turn:
        opened = _opened.get(key)
        if opened is None:
            opened = _opened[key] = open_object_storage(location)
            # Kept when the storage is closed: a run of many targets counts all its requests.
            _traffic.setdefault(str(location), []).append(opened.traffic)
        _opened.move_to_end(key)
        while len(_opened) > _MOST_OPEN:
            _opened.popitem(last=False)
        return opened


def requests_so_far() -> dict[str, dict[tuple[str, str], Count]]:
    """Return the counts of all stores that this process has used, by target, verb and kind."""
    with _turn:
        counted = {target: list(parts) for target, parts in _traffic.items()}
    return {target: sum_of(parts) for target, parts in counted.items()}


def _environment(location: StorageLocation) -> str:
    """Return a hash of all that decides how a store is reached; nothing of it can be read back."""
    values = {key: value for key, value in os.environ.items() if key.startswith(_PREFIXES)}
    config: dict[str, str] = {}
    if location.kind == S3:
        has_endpoint = location.endpoint is not None
        config = s3_options(str(location), location.profile, has_endpoint=has_endpoint)
    return blake3(repr((sorted(values.items()), sorted(config.items()))).encode()).hexdigest()


def completed(location: StorageLocation) -> StorageLocation:
    """Return a location with the server that AWS's own variables name, where it names none.

    Without a configuration, there is no other place for it.
    """
    endpoint = _first_of("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = _first_of("AWS_REGION", "AWS_DEFAULT_REGION")
    return replace(
        location, endpoint=location.endpoint or endpoint, region=location.region or region
    )


def _first_of(*variables: str) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


def _s3(location: StorageLocation, bucket: str, prefix: str) -> Connection:
    has_endpoint = location.endpoint is not None
    config = s3_options(str(location), location.profile, has_endpoint=has_endpoint)
    # One request removes one object, and no answer has errors inside of a success.
    config["disable_bulk_delete"] = "true"
    endpoint = location.endpoint or config.get("endpoint", "https:")
    if location.endpoint is not None:
        # The variable of this name would win over ``endpoint``.
        config["aws_endpoint_url_s3"] = location.endpoint
    if location.region is not None:
        config["region"] = location.region
    if not endpoint.startswith("http://"):
        config["unsigned_payload"] = "true"  # TLS protects it; a hash more costs both sides time

    def client(most_s: float, step_s: float) -> Client:
        return S3Store(
            bucket,
            prefix=prefix or None,
            config=config,  # type: ignore[arg-type]
            client_options=_options(most_s, step_s, endpoint),
            retry_config=_NO_TRIES,  # type: ignore[arg-type]
        )

    make: Callable[[], None] | None = None
    if location.create_bucket:
        make = partial(_make_bucket, location, bucket, config, endpoint)
    return Connection(client, make)


def _options(most_s: float, step_s: float, endpoint: str) -> Answer:
    return {
        "timeout": timedelta(seconds=most_s),
        "read_timeout": timedelta(seconds=step_s),
        "connect_timeout": timedelta(seconds=min(_CONNECT_S, step_s)),
        "allow_http": endpoint.startswith("http://"),
    }


def _make_bucket(
    location: StorageLocation, bucket: str, config: dict[str, str], endpoint: str
) -> None:
    """Make a bucket: the library has no call for it, but signs one.

    Raises:
        StorageError: it was not made.
    """
    options = _options(_CONNECT_S, _CONNECT_S, endpoint)
    store = S3Store(bucket, config=config, client_options=options)  # type: ignore[arg-type]
    url = obstore.sign(store, "PUT", "", timedelta(minutes=5))
    region = location.region or config.get("region", _DEFAULT_REGION)
    body = f"<LocationConstraint>{escape(region)}</LocationConstraint>"
    body = f"<CreateBucketConfiguration>{body}</CreateBucketConfiguration>"
    data = b"" if region == _DEFAULT_REGION else body.encode()
    request = urllib.request.Request(url, data, method="PUT")  # noqa: S310 -- the endpoint's
    try:
        with urllib.request.urlopen(request, timeout=_CONNECT_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        if error.code == _CONFLICT:  # another host has just made it
            return
        reason = f"the store answers {error.code}"
    except OSError as error:
        reason = f"cannot reach the store: {error}"
    raise StorageError(
        f"cannot make bucket {bucket!r} for {location}: {reason}",
        hint="Make the bucket with the tools of the store's provider.",
    )
