"""Where the files of a target are stored, before any of them is opened.

All of the program passes this value on; ``open_storage`` of the repository is the one place that
turns it into a ``Storage``. Whether a target is a directory of this machine is asked here, and
nowhere else.
"""

import re
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.errors import StorageError

LOCAL: Final = "file"
SSH: Final = "ssh"
S3: Final = "s3"
BUCKET_KINDS: Final = (S3, "gs", "az")
"""Buckets of S3 and of Google Cloud Storage, containers of Azure Blob Storage."""
URL_KINDS: Final = (*BUCKET_KINDS, SSH)
"""The kinds that a configuration can name by a URL."""
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


class StorageLocation(Struct, frozen=True):
    """Where the files of a target are. It never holds credentials.

    Attributes:
        kind: which kind of storage holds them: ``LOCAL``, or the scheme of a URL.
        path: where they are in a storage of that kind; of ``LOCAL``, the path of a directory.
        endpoint: the URL of the server; None for the provider's own.
        region: of the bucket; None for the server's default.
        profile: the section of the AWS files that has the credentials; None for the environment.
        create_bucket: whether to make the bucket if it is missing.
        key_file: of an encrypted target, the file on this host that opens it; else None.
        sealed_for: of a sealed target, the file on this host with the public half of the recovery
            key, which alone opens its chunks; else None.
        held_key: the name of a key that this process holds in memory, and that opens the target in
            place of the key file; else None.
    """

    kind: str
    path: str
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    create_bucket: bool = False
    key_file: Path | None = None
    sealed_for: Path | None = None
    held_key: str | None = None

    @classmethod
    def of(cls, target: Path | str) -> "StorageLocation":
        """Return the location that a target's path or URL stands for."""
        url = _URL.fullmatch(target) if isinstance(target, str) else None
        return cls(LOCAL, str(target)) if url is None else cls(url[1], url[2])

    def __str__(self) -> str:
        return self.path if self.kind == LOCAL else f"{self.kind}://{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine."""
        return self.kind == LOCAL

    @property
    def is_encrypted(self) -> bool:
        """Whether its files are encrypted, as the configuration says."""
        return self.key_file is not None or self.held_key is not None

    @property
    def without_keys(self) -> "StorageLocation":
        """The same place, as everybody sees it."""
        return replace(self, key_file=None, sealed_for=None, held_key=None)

    @property
    def plain_directory(self) -> Path | None:
        """The local directory that has the target's files as they are, under their own names.

        None if they are elsewhere or encrypted. Only such a target has pending files in it, and
        packages that are files of their own.
        """
        return Path(self.path) if self.is_local and not self.is_encrypted else None

    @property
    def directory(self) -> Path:
        """The local directory.

        Raises:
            StorageError: the location is not a local directory.
        """
        if self.kind != LOCAL:
            raise StorageError(
                f"not a local directory: {str(self)!r}",
                hint="Name a target that is a directory of this machine.",
            )
        return Path(self.path)
