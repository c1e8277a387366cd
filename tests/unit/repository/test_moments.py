"""A target put together from copies of different moments: nothing goes that is needed and there.

The moments are those of a history of backups, removals, prunes, merges and deaths; packs, index,
maps and the notes of the prune and of ``repair`` each come from any of them, and a pack may be
lost or cut off on the way. What such a target still holds is found out by a reader of its own.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.pack_bytes import held_ids, needed_ids
from fakes.repaired import repair
from fakes.small_repository import SmallRepository, content
from fakes.sudden_death import killed_before
from virtbackup_async.errors import CorruptError
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.data import chunk_writer
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.prune.prune import prune_repository
from virtbackup_async.repository.storage.repository_file import find_repository, make_repository

PARTS = ("packs", "index", "condemned", "damaged", "maps")
NEW = [2, 3, 11, 12]

IMAGES = st.lists(st.integers(0, 9), min_size=1, max_size=8)
DEATHS = st.integers(0, 45)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("back up"), IMAGES),
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("prune"), st.none()),
        st.tuples(st.just("repair"), st.none()),
        st.tuples(st.just("die in a backup"), st.tuples(IMAGES, DEATHS)),
        st.tuples(st.just("die in a prune"), DEATHS),
    ),
    min_size=2,
    max_size=9,
)
HARMS = st.one_of(
    st.just(("", 0, 0)),
    st.tuples(st.sampled_from(["lose", "cut"]), st.integers(0, 9), st.integers(0, 700)),
)
MOMENTS = st.tuples(*[st.integers(0, 9)] * len(PARTS))
ORDERS = st.lists(st.sampled_from(["prune", "repair", "back up"]), max_size=4)
# A chunk is packed anew between the two moments; the index is of the first, the packs of the other.
SWEPT = [
    ("back up", list(range(1, 9))), ("back up", [2]), ("remove", 0), ("prune", None),
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_packs(monkeypatch):
    """Packs of a few chunks, and segments that are merged at once."""
    monkeypatch.setattr(pack_format, "PACK_BYTES", 700)
    monkeypatch.setattr(pruning, "MAX_SEGMENTS", 2)
    monkeypatch.setattr(chunk_writer, "MERGED_AT_ONCE", 2)
    monkeypatch.setattr(chunk_writer, "CHUNKS_A_SEGMENT", 3)


@pytest.mark.timeout(600)
@settings(max_examples=25, deadline=None)
@given(steps=STEPS, moments=MOMENTS, harm=HARMS, order=ORDERS)
@example(steps=SWEPT, moments=(3, 2, 3, 3, 3), harm=("", 0, 0), order=["prune"])
@example(steps=SWEPT, moments=(2, 3, 3, 3, 2), harm=("", 0, 0), order=["back up", "prune"])
def test_whatever_is_put_together_is_kept_and_found(steps, moments, harm, order):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        History(Path(directory)).live(steps).put_together(moments, harm).check(order)


class History:
    """A repository, a copy of it after each step, and then the target made of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = SmallRepository(root / "site" / "target")
        self.images: dict[str, list[int]] = {}
        self.moments: list[Path] = []
        make_repository(self.place.location)

    def live(self, steps) -> "History":
        for number, (what, how) in enumerate(steps):
            self._step(f"20260301-0215{number:02}_3_web", what, how)
            self.moments.append(self.root / f"moment-{number}")
            shutil.copytree(self.place.target, self.moments[-1])
        return self

    def _step(self, name, what, how) -> None:
        match what:
            case "back up":
                self._back_up(name, how)
            case "remove":
                maps = sorted(self.place.directory.glob("*.map"))
                if maps:
                    maps[how % len(maps)].unlink()
            case "prune":
                self._sweep()
            case "repair":
                repair(self.place)
            case "die in a backup":
                self.images[name] = how[0]
                killed_before(how[1], partial(self._back_up, name, how[0]))
            case "die in a prune":
                killed_before(how, self._sweep)

    def _back_up(self, name, numbers) -> None:
        self.images[name] = numbers
        anyio.run(self.place.back_up, name, content(numbers))

    def _sweep(self) -> None:
        repository = find_repository(self.place.location)
        prune_repository(repository, partial(list_maps, repository.storage), lambda: None)

    def put_together(self, moments, harm) -> "History":
        """Take each part from a moment."""
        repository = self.place.target / ".virtbackup-repository"
        for part, moment in zip(PARTS, moments, strict=True):
            source = self.moments[moment % len(self.moments)]
            if part == "maps":
                _replace(source / "web", self.place.directory)
            else:
                _replace(source / repository.name / part, repository / part)
        what, which, where = harm
        packs = sorted(repository.glob("packs/*/*.pack"))
        if packs and what == "lose":
            packs[which % len(packs)].unlink()
        elif packs and what == "cut":
            pack = packs[which % len(packs)]
            os.truncate(pack, min(where, pack.stat().st_size))
        return self

    def check(self, order) -> None:
        held = held_ids(self.place.target)
        for number, what in enumerate([*order, "repair", "prune", "back up"]):
            # No map that is needed goes, whatever is done in whatever order.
            needed = self._needed()
            name = f"20260401-0215{number:02}_3_web"
            match what:
                case "prune":
                    with suppress(CorruptError):
                        self._sweep()
                case "repair":
                    repair(self.place)
                case "back up":
                    self._back_up(name, NEW)
                    assert self._restored(name) == content(NEW)
            still_held = held_ids(self.place.target)
            assert needed & held <= still_held, f"lost by {what}"
            held = still_held
            if what == "repair":
                self._check_all(held)
        self._check_all(held)

    def _needed(self) -> set[bytes]:
        return {id_ for path in self._maps() for id_ in needed_ids(path)}

    def _maps(self) -> list[Path]:
        return sorted(self.place.directory.glob("*.map"))

    def _check_all(self, held) -> None:
        """All that the packs hold is found by the index."""
        for path in self._maps():
            name = path.name.removesuffix("_vda.raw.map")
            if needed_ids(path) <= held:
                assert self._restored(name) == content(self.images[name])
            else:
                with pytest.raises(CorruptError):
                    self._restored(name)

    def _restored(self, name) -> bytes:
        return anyio.run(self.place.restored, name)


def _replace(source: Path, place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if source.is_dir():
        shutil.copytree(source, place)
    elif source.exists():
        shutil.copy2(source, place)
