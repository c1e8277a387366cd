"""model/storage_location.py: where the files of a target are."""

from pathlib import Path

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import LOCAL, StorageLocation


@pytest.mark.parametrize(
    "path", ["/srv/backup", "srv", "host:/srv", "/srv/s3:/x", "S3://x", "://x", "/s3://x"]
)
def test_a_path_is_a_local_directory(path):
    location = StorageLocation.of(path)
    assert (location.kind, location.path, str(location)) == (LOCAL, path, path)
    assert location.directory == Path(path)
    assert StorageLocation.of(location.directory) == StorageLocation.of(Path(path))


def test_a_path_is_never_a_url():
    location = StorageLocation.of(Path("memory://one"))
    assert location.directory == Path("memory:/one")


@pytest.mark.parametrize(
    ("url", "kind", "path"),
    [
        ("memory://one", "memory", "one"),
        ("s3+http://host:9000/bucket/a b?x=://y", "s3+http", "host:9000/bucket/a b?x=://y"),
        ("memory://", "memory", ""),
        ("memory://a\nb", "memory", "a\nb"),
    ],
)
def test_a_url_is_a_storage_of_its_kind(url, kind, path):
    location = StorageLocation.of(url)
    assert (location.kind, location.path, str(location)) == (kind, path, url)
    with pytest.raises(StorageError, match="not a local directory: "):
        _ = location.directory
