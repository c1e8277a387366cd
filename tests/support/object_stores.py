"""Storages in object stores for tests: in SeaweedFS, and in the memory of the library."""

import secrets

import obstore.store

from object_server import BUCKET, ObjectServer
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.objects.connecting import open_object_storage
from virtbackup_async.repository.storage.objects.probe import Probed
from virtbackup_async.repository.storage.objects.requests import Connection, Patience
from virtbackup_async.repository.storage.objects.storage import ObjectStorage

# Short pauses, but as long for an answer as a busy machine takes: no test passes by giving up.
IMPATIENT = Patience(answer_s=60, first_s=60, gone_s=60, pause_s=0.01, longest_pause_s=0.05)


def new_location(endpoint: str, bucket: str = BUCKET) -> StorageLocation:
    """A place in a server that nobody else uses."""
    return StorageLocation("s3", f"{bucket}/{secrets.token_hex(8)}", endpoint=endpoint)


def new_storage(server: ObjectServer, patience: Patience | None = None) -> ObjectStorage:
    """An empty storage in a server; the credentials must be set."""
    return open_object_storage(new_location(server.endpoint), patience)


def memory_object_storage() -> ObjectStorage:
    """An empty storage in memory, behind the same calls."""
    store = obstore.store.MemoryStore()
    location = StorageLocation("s3", f"memory/{secrets.token_hex(8)}")
    return ObjectStorage(location, Connection(lambda _most_s, _step_s: store), IMPATIENT)


def count_as_probed(storage: ObjectStorage) -> None:
    """Let a storage know that the store keeps its promises, without the requests of a probe."""
    storage._probed = Probed(True, True, "of a test", "of a test")
