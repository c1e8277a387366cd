"""Sends files to an object store as they are, or reads them: what a store takes by itself.

    python benchmarks/plain_store.py upload ENDPOINT PREFIX DIRECTORY    two at once
    python benchmarks/plain_store.py download ENDPOINT PREFIX            one after the other

The files are packs; credentials come from the environment.
"""

import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import obstore.store

PACKS = ".virtbackup-repository/packs"
BUCKET = "tests"
_AT_ONCE = 2


def client_of(endpoint: str) -> obstore.store.S3Store:
    """A client of the library alone."""
    options: Any = {"allow_http": True, "timeout": "3600s"}
    return obstore.store.S3Store(BUCKET, config={"endpoint": endpoint}, client_options=options)


def upload(endpoint: str, prefix: str, directory: str) -> None:
    """Send the packs of a repository in a directory, under new names."""
    client, name = client_of(endpoint), secrets.token_hex(8)

    def send(pack: Path) -> None:
        obstore.put(client, f"{prefix}/{name}/{pack.name}", pack.read_bytes(), use_multipart=False)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(send, sorted(Path(directory, PACKS).rglob("*.pack"))))


def download(endpoint: str, prefix: str) -> None:
    """Read the packs of a repository."""
    client = client_of(endpoint)
    for page in obstore.list(client, f"{prefix}/{PACKS}"):
        for entry in page:
            obstore.get(client, entry["path"]).bytes()


if __name__ == "__main__":
    {"upload": upload, "download": download}[sys.argv[1]](*sys.argv[2:])
