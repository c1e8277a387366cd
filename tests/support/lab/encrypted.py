"""Encrypted images (LUKS), as qcow2 or raw, made once: QEMU measures the processor for each key.

The key is ``KEY``. Called by tests and by ``domains.py``'s users.
"""

import shutil
import tempfile
from pathlib import Path

from lab.guest import cache_root
from lab.process import LabError, run

KEY = "letmein"
SIZE = "16M"
_OPTIONS = {
    "qcow2": "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10",
    "luks": "key-secret=key,iter-time=10",
}
# On a processor that does much else, QEMU cannot measure and gives up.
_BUSY = "Unable to get accurate CPU usage"
_TRIES = 50


def encrypted_image(path: Path, image_format: str) -> Path:
    """Copy an empty encrypted image of ``SIZE`` to ``path``; ``luks`` is a raw one."""
    kept = cache_root() / f"encrypted-{SIZE}.{image_format}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
            made = Path(directory) / "image"
            _make(made, image_format)
            made.rename(kept)
    shutil.copyfile(kept, path)
    return path


def decrypted(path: Path, image_format: str) -> bytes:
    """Return what a guest sees of an image that :func:`encrypted_image` made, or of a copy."""
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory) / "raw"
        secret = "encrypt.key-secret" if image_format == "qcow2" else "key-secret"
        image = f"driver={image_format},file.driver=file,file.filename={path},{secret}=key"
        run("qemu-img", "convert", "-U", *_key(), "--image-opts", image, "-O", "raw", raw)
        return raw.read_bytes()


def _make(path: Path, image_format: str) -> None:
    options = ("-f", image_format, *_key(), "-o", _OPTIONS[image_format])
    for _ in range(_TRIES):
        try:
            run("qemu-img", "create", "-q", *options, path, SIZE)
        except LabError as error:
            if _BUSY not in str(error):
                raise
        else:
            return
    raise LabError(f"no encrypted image in {_TRIES} tries: {_BUSY}")


def _key() -> tuple[str, str]:
    return ("--object", f"secret,id=key,data={KEY}")
