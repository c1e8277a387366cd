"""A repository of version 2 is read: by the program, and by what the document says alone.

docs/reference/repository-format.md describes every byte that ``DocumentReader`` looks at.
"""

import base64
import shutil
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fakes.document_reader import DocumentReader, key_for
from fakes.small_repository import content
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.packagers.repository.reader import open_reader

SAMPLE = Path(__file__).parent / "data" / "repository-2"
NAME = "20261130-021500_3_web"
IMAGE = content([1, 2, 0, 3, 1])
PASSPHRASE = b"frozen in 2026"
PAPER = "MRSW-MZ3I-NFVG-W3DN-NZXX-A4LS-ON2H-K5TX-PB4X-U634-PV7H-7AEB-QKBY-CYHO"
CHUNK_KEY = "3053532b59795d565dd9fceb3d2fa0539a998d39cff7d571eeeb484a4ab5cf65"
WEB = "meq35e5mppjbpgm5ka94c7ogd8oo5q600jkgpvai1393h3ldaml0"


@pytest.fixture
def place(tmp_path):
    shutil.copytree(SAMPLE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "key").chmod(0o600)
    return tmp_path


async def test_the_program_reads_it(place):
    location = StorageLocation(LOCAL, str(place / "target"), key_file=place / "key")
    package = Location(Packager("repository", {}), location, "web", NAME)
    async with (
        open_reader(package, BufferPool()) as reader,
        reader.open_disk(f"{NAME}_vda.raw") as stream,
    ):
        assert await reader.files() == (f"{NAME}_vda.raw",)
        await write_sparse(stream, place / "restored", lambda _: None)
    assert (place / "restored").read_bytes() == IMAGE


def test_the_document_is_enough_to_read_it(place):
    reader = DocumentReader(place / "target")
    master = reader.open_by_key_file(place / "key")
    assert reader.open_by_passphrase(PASSPHRASE) == master
    assert reader.open_by_recovery_key(PAPER) == master
    with pytest.raises(InvalidTag):
        reader.open_by_passphrase(b"frozen in 2027")
    reader.use(master)
    assert reader.image(f"web/{NAME}_vda.raw.map") == IMAGE


def test_known_answers():
    """Values that never change: whatever follows from a master secret of 00 01 02 ... 1f."""
    master = bytes(range(32))
    assert key_for(master, "id of the keys", 16).hex() == "d5123ebf9ffe1b6c3b70aea9c7fd30bd"
    assert key_for(master, "ids of chunks").hex() == CHUNK_KEY
    sealed = AESSIV(key_for(master, "names of files", 64)).encrypt(
        b"web" + bytes(13), [b"name" + bytes(16), b""]
    )
    assert base64.b32hexencode(sealed).decode().rstrip("=").lower() == WEB
