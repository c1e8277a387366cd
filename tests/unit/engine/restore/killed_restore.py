"""Restores in place and kills itself at a step: ``ROOT DEFINITION STEP before|after NUMBER``.

A program of its own, because SIGKILL ends whoever gets it. Steps are the calls that change what is
in the directory of the images, and the syncs between them.
"""

import os
import signal
import sys
from pathlib import Path

import anyio
from msgspec.structs import replace

_TESTS = Path(__file__).parents[3]
sys.path[:0] = [str(_TESTS), str(_TESTS / "support"), str(Path(__file__).parent)]

from test_in_place import ReplacedSite, ShutOff  # noqa: E402 -- the path is set above

from virtbackup_async.catalog import definition_file  # noqa: E402 -- the path is set above
from virtbackup_async.model.backup import DiskRecord  # noqa: E402 -- the path is set above


def kill_at(owner: object, name: str, when: str, number: int) -> None:
    """Let the call with that number, counted from 1, be the last thing that happens."""
    call = getattr(owner, name)
    calls = []

    def killing(*arguments: object, **options: object) -> object:
        # Two disks are at work: the count may move on while a call is under way.
        calls.append(name)
        is_last = len(calls) == number
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = call(*arguments, **options)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    setattr(owner, name, killing)


async def main(root: Path, path: Path, step: str, when: str, number: int) -> None:
    site = ReplacedSite(root)
    definition = definition_file.loads(path.read_bytes(), path)
    image = definition.records["vda"].image
    site.stored = type("Stored", (), {"directory": path.parent})
    site.definition = replace(
        definition,
        disks=dict.fromkeys(site.images, image.file),
        records={
            dev: DiskRecord(replace(image, source=str(file))) for dev, file in site.images.items()
        },
    )
    site.domains = (ShutOff(site.images),)
    owner = os if step in {"link", "fsync"} else Path
    kill_at(owner, step, when, number)
    await site.restore()


if __name__ == "__main__":
    root, path, step, when, number = sys.argv[1:]
    anyio.run(main, Path(root), Path(path), step, when, int(number))
