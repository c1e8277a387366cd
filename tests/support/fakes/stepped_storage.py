"""Actors that work on one storage at once, one step of one of them at a time, and die anywhere.

Each actor is a process of its own as far as the storage can tell: it has a storage object of its
own. A step ends before and after each call of the storage, and of the files that it opens. Who goes
next is drawn from a seed, so a history can be played again.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from threading import Semaphore, Thread
from typing import Any

FILES = frozenset({"create", "create_hidden", "open", "take_lease", "open_directory"})
# What the kernel does for a process that has died: it closes files, and what shows that it lives.
ON_DEATH = {"take_lease": "_close", "create_hidden": "discard", "open": "close"}
UNSTEPPED = frozenset({"where", "close", "append"})


class DiedError(BaseException):
    """The actor's process was killed."""


class Actor:
    """A process: it runs in a thread, and stands still between its steps."""

    def __init__(self, work: Callable[["Actor"], None]) -> None:
        self.error: BaseException | None = None
        self.has_ended = False
        self._on_death: list[Callable[[], None]] = []
        self._is_dying = False
        self._may_go = Semaphore(0)
        self._has_stopped = Semaphore(0)
        self._thread = Thread(target=self._run, args=(work,))
        self._thread.start()

    def step(self) -> None:
        """Let it go to its next stop, or to its end."""
        self._may_go.release()
        self._has_stopped.acquire()
        if self.has_ended:
            self._thread.join()

    def die(self) -> None:
        """Kill it where it stands; nothing that it tries afterwards reaches the storage."""
        self._is_dying = True
        while not self.has_ended:
            self.step()
        for close in self._on_death:
            close()

    def stop(self) -> None:
        """Stand still until the next step; called by the actor."""
        if self._is_dying:
            raise DiedError
        self._has_stopped.release()
        self._may_go.acquire()
        if self._is_dying:
            raise DiedError

    def note_opened(self, verb: str, opened: Any) -> None:
        """Note something that is closed when the actor dies."""
        if verb in ON_DEATH:
            self._on_death.append(getattr(opened, ON_DEATH[verb]))

    def _run(self, work: Callable[["Actor"], None]) -> None:
        self._may_go.acquire()
        with suppress(DiedError):
            try:
                work(self)
            except Exception as error:  # noqa: BLE001 -- the history judges it
                self.error = error
        self.has_ended = True
        self._has_stopped.release()


class SteppedStorage:
    """Passes all calls on, and lets the actor stand still before and after each."""

    def __init__(self, inner: Any, actor: Actor) -> None:
        self._inner = inner
        self._actor = actor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SteppedStorage) and self._inner == other._inner

    def __hash__(self) -> int:
        return hash(self._inner)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name in UNSTEPPED:
            return found

        def stepped(*args: Any, **options: Any) -> Any:
            self._actor.stop()
            done = found(*args, **options)
            self._actor.note_opened(name, done)
            self._actor.stop()
            return SteppedStorage(done, self._actor) if name in FILES else done

        return stepped


def play(
    numbers: random.Random,
    next_work: Callable[[], Callable[[Actor], None] | None],
    at_once: int,
    share_of_deaths: float,
) -> list[Actor]:
    """Let actors work until there is no more work; return all of them, ended.

    Args:
        numbers: decides who goes next, and who dies.
        next_work: returns the work of the next actor, None if there is none.
        at_once: so many work at the same time.
        share_of_deaths: of all steps, how many are the death of the actor.
    """
    every: list[Actor] = []
    living: list[Actor] = []
    has_more = True
    while living or has_more:
        while has_more and len(living) < at_once:
            work = next_work()
            has_more = work is not None
            if work is not None:
                living.append(Actor(work))
                every.append(living[-1])
        if not living:
            break
        actor = numbers.choice(living)
        if numbers.random() < share_of_deaths:
            actor.die()
        else:
            # Some go far while the others stand still.
            for _ in range(numbers.choice((1, 1, 1, 5, 30))):
                if not actor.has_ended:
                    actor.step()
        if actor.has_ended:
            living.remove(actor)
    return every
