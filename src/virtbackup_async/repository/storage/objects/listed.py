"""What the last lists said of files, so that a read need not ask for each of them again."""

import time
from collections.abc import Mapping
from threading import Lock
from typing import Final

from virtbackup_async.repository.storage.objects.answers import Meta
from virtbackup_async.repository.storage.objects.traffic import kind_of

LISTED_S: Final = 300.0


class Listed:
    """Facts from the last lists: each is used once, and soon; any thread may ask.

    A file is mostly looked at before it is opened, so each of both may use its facts once.
    """

    def __init__(self) -> None:
        self._metas: dict[str, tuple[float, dict[str, Meta]]] = {}
        self._looked_at: dict[str, set[str]] = {}
        self._turn = Lock()

    def note(self, directory: str, files: Mapping[str, Meta]) -> None:
        """Note the facts of a list."""
        if kind_of(f"{directory}/-") == "guests":
            with self._turn:
                self._metas[directory] = (time.monotonic(), dict(files))
                self._looked_at[directory] = set()

    def look(self, name: str) -> Meta | None:
        """Return the facts about a file, as ``take`` does, and leave them for it."""
        directory, _, last = name.rpartition("/")
        with self._turn:
            at_s, files = self._metas.get(directory, (0.0, {}))
            looked_at = self._looked_at.setdefault(directory, set())
            if last in looked_at or time.monotonic() - at_s >= LISTED_S:
                return None
            looked_at.add(last)
            return files.get(last)

    def take(self, name: str) -> Meta | None:
        """Return the facts about a file, if a list had them a moment ago; only once."""
        directory, _, last = name.rpartition("/")
        with self._turn:
            at_s, files = self._metas.get(directory, (0.0, {}))
            meta = files.pop(last, None)
        return meta if time.monotonic() - at_s < LISTED_S else None

    def forget(self, name: str) -> None:
        """Forget a file that is written or removed."""
        self.take(name)
