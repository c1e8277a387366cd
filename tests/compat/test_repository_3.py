"""A sealed repository, version 3, is read: by the program, and by what the document says alone."""

import shutil
import struct
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from msgspec.structs import replace

from fakes.document_reader import HPKE, DocumentReader, halves
from fakes.small_repository import content
from virtbackup_async.errors import ConfigError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.repository import drop_key, hold_key, key_of_paper

SAMPLE = Path(__file__).parent / "data" / "repository-3"
NAME = "20261130-021500_3_web"
IMAGE = content([1, 2, 0, 3, 1])
PASSPHRASE = b"frozen in 2026"
PAPER = "MRSW-MZ3I-NFVG-W3DN-NZXX-A4LS-ON2H-K5TX-PB4X-U634-PV7H-7AEB-QKBY-CYHO"
NEXT_KEY = "bea2015deb7005f9c50febbe0f1e199a477b3f4490d3ec1fbb3e5d395433aa16"
PACK_KEY = "9a6d15534a417ea5a9ab6165b64809994d5d60708417b27aa8ca046f248196c4"


@pytest.fixture
def place(tmp_path):
    shutil.copytree(SAMPLE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "recovery.pub").chmod(0o644)
    return tmp_path


async def read(place, location):
    package = Location(Packager("repository", {}), location, "web", NAME)
    async with (
        open_reader(package, BufferPool()) as reader,
        reader.open_disk(f"{NAME}_vda.raw") as stream,
    ):
        await write_sparse(stream, place / "restored", lambda _: None)
    return (place / "restored").read_bytes()


async def test_the_program_reads_it_with_the_recovery_key_alone(place):
    location = StorageLocation(
        LOCAL, str(place / "target"), key_file=place / "key", sealed_for=place / "recovery.pub"
    )
    with pytest.raises(ConfigError, match="only the recovery key"):
        await read(place, location)
    name = hold_key(key_of_paper(PAPER))
    assert await read(place, replace(location, held_key=name)) == IMAGE
    drop_key(name)


def run_key_for(secret, purpose):
    return blake3(
        secret, derive_key_context=f"virtbackup-async 2026-11 run key: {purpose}"
    ).digest()


class SealedReader(DocumentReader):
    """Reads a sealed target as the document describes it."""

    wrapping = 2
    letters = None

    def pack_key(self, wrapped):
        run, number, zeros = struct.unpack("<16sI28s", wrapped)
        assert zeros == bytes(28)
        secret = self.run_key(run)
        for _ in range(number):
            secret = run_key_for(secret, "next")
        return run_key_for(secret, "pack")

    def run_key(self, run):
        private, public = halves(self.letters)
        assert self.facts["encryption"]["public"] == public.hex()
        (pack,) = self.repository.glob("packs/*/*.pack")
        for copy in (0, 1):
            name = f"{pack.stem[:24]}-{run.hex()}-{copy}"
            data = self.file(f".virtbackup-repository/run-keys/{name}")
            assert len(data) == 32 + 1168
            magic, version, zeros, found = struct.unpack("<8sH6s16s", data[:32])
            assert (magic, version, zeros, found) == (b"vbk-runk", 1, bytes(6), run)
            bound = b"virtbackup run key\0" + bytes.fromhex(self.facts["encryption"]["keys"]) + run
            secret = HPKE.decrypt(data[32:], private, bound)
        return secret


def test_the_document_is_enough_to_read_it(place):
    reader = SealedReader(place / "target")
    master = reader.open_by_key_file(place / "key")
    assert reader.open_by_passphrase(PASSPHRASE) == master
    assert reader.open_by_recovery_key(PAPER) == master
    assert reader.facts["version"] == 3
    reader.use(master)
    reader.letters = PAPER
    assert reader.image(f"web/{NAME}_vda.raw.map") == IMAGE


def test_the_keys_of_the_host_are_not_enough(place):
    """As of version 2, the pack key would be sealed under a key that follows from the master."""
    reader = SealedReader(place / "target")
    reader.use(reader.open_by_key_file(place / "key"))
    reader.pack_key = lambda wrapped: DocumentReader.pack_key(reader, wrapped)
    with pytest.raises(InvalidTag):
        reader.image(f"web/{NAME}_vda.raw.map")


def test_known_answers():
    """Values that never change: whatever follows from a run key of 00 01 02 ... 1f."""
    first = bytes(range(32))
    assert run_key_for(first, "next").hex() == NEXT_KEY
    assert run_key_for(run_key_for(first, "next"), "pack").hex() == PACK_KEY
