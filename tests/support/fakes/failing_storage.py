"""A storage of which any call can fail, before or after it is done."""

from collections.abc import Callable
from typing import Any

from virtbackup_async.repository.storage.interface import Storage

CHANGING = frozenset(
    {"make_directory", "sync_names", "replace", "change", "rename", "put_new", "overwrite",
     "create", "create_hidden", "remove", "take_lease", "append", "finish_soon", "finish",
     "publish", "publish_exclusively"}
)  # fmt: skip


class FailingStorage:
    """Passes all calls on, also those of the files that it opens.

    Args:
        inner: what does the work.
        before: called before each call that changes something, with its verb; may raise.
        after: the same, when it is done: the answer is lost.
    """

    def __init__(
        self,
        inner: Storage,
        before: Callable[[str], None] = lambda _: None,
        after: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._inner: Any = inner
        self._before = before
        self._after = after

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailingStorage) and self._inner == other._inner

    def __hash__(self) -> int:
        return hash(self._inner)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in CHANGING:
            return self._watched(name, found)
        return found

    def _watched(self, verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: object, **options: object) -> Any:
            self._before(verb)
            done = call(*args, **options)
            self._after(verb)
            is_file = verb in {"create", "create_hidden"}
            return FailingStorage(done, self._before, self._after) if is_file else done

        return watched
