"""The admin's own commands around a run: ``before``, ``after`` and ``on_failure``.

``session`` opens them around all backups of a run::

    before of the run, before of each group     if one fails, its backups fail untouched
        the backups
    of each group, then of the run: on_failure if a backup failed, after in any case

A hook that exceeds its timeout is killed with its process group. A hook that has ended is done,
whatever it left running: the program neither waits for that nor kills it. ``after`` and
``on_failure`` also run after a cancellation, because they undo the work of ``before``.
"""

import json
import logging
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
from msgspec import Struct, field
from msgspec.structs import asdict

from virtbackup_async.config.schema import Config, Group, Hooks
from virtbackup_async.engine.plan import Plan, PlannedBackup
from virtbackup_async.errors import HookError
from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    Emit,
    HookEnded,
    HookFailed,
    HookStarted,
)
from virtbackup_async.model.heads import head_of
from virtbackup_async.processes import Ended, run_program

_log = logging.getLogger(__name__)

KEEP_BYTES = 64 * 1024
_SHOWN = 200
Result = BackupDone | BackupFailed


class _HookScope(Struct):
    """The backups that hooks enclose: those of a group, or with None the whole run."""

    group: Group | None
    hooks: Hooks
    results: list[Result] = field(default_factory=list)
    refusal: HookError | None = None

    @property
    def place(self) -> str:
        return f" of group {self.group.name}" if self.group else ""


class OpenHooks:
    """The hooks of one run, and the results of the backups that they enclose."""

    def __init__(self, config: Config, plan: Plan, emit: Emit) -> None:
        self._config = config
        self._emit = emit
        self._run = _HookScope(None, config.hooks)
        names = dict.fromkeys(name for planned in plan.backups for name in _groups(planned))
        self._groups = {
            name: _HookScope(config.groups[name], config.groups[name].hooks) for name in names
        }

    def check(self, planned: PlannedBackup) -> None:
        """Let a backup pass, unless a ``before`` that it needs failed.

        Raises:
            HookError: that ``before`` failed.
        """
        for refusal in self._refusals(planned):
            raise HookError(refusal.message, hint=refusal.hint)

    def lets_pass(self, planned: PlannedBackup) -> bool:
        """Return whether ``check`` would let a backup pass."""
        return not any(self._refusals(planned))

    def _refusals(self, planned: PlannedBackup) -> Iterator[HookError]:
        for scope in (self._run, *(self._groups[name] for name in _groups(planned))):
            if scope.refusal is not None:
                yield scope.refusal

    def note(self, groups: Iterable[str], result: Result) -> None:
        """Record the result of a backup that these groups wanted."""
        self._run.results.append(result)
        for name in groups:
            if name in self._groups:
                self._groups[name].results.append(result)

    async def before(self) -> None:
        """Run ``before`` of the run, then of each group."""
        for scope in (self._run, *self._groups.values()):
            if self._run.refusal is None:
                scope.refusal = self._distrusted(scope) or await self._begin(scope)

    async def after(self) -> None:
        """Run ``on_failure`` where a backup failed, and ``after``, from the inside out."""
        for scope in (*self._groups.values(), self._run):
            if any(isinstance(result, BackupFailed) for result in scope.results):
                await self._call("on_failure", scope)
            await self._call("after", scope)

    def _distrusted(self, scope: _HookScope) -> HookError | None:
        """Refuse hooks that another user can have written."""
        found = self._config.distrust
        if found is None or not scope.hooks.commands:
            return None
        message = f"hooks{scope.place} are refused: {found.message}"
        self._failed("before", scope, message)
        return HookError(message, hint=found.hint)

    async def _begin(self, scope: _HookScope) -> HookError | None:
        if await self._call("before", scope) is None:
            return None
        # Each backup fails with this; the event has the hook's own output, once.
        return HookError(
            f"hook before{scope.place} failed", hint="Fix what it reports; no guest was touched."
        )

    async def _call(self, name: str, scope: _HookScope) -> str | None:
        argv: tuple[str, ...] | None = getattr(scope.hooks, name)
        if argv is None or self._config.distrust:
            return None
        group = scope.group.name if scope.group else None
        began_s = anyio.current_time()
        self._emit(HookStarted(name, group))
        try:
            return await self._run_hook(name, scope, argv)
        finally:
            self._emit(HookEnded(name, group, round(anyio.current_time() - began_s, 3)))

    async def _run_hook(self, name: str, scope: _HookScope, argv: Sequence[str]) -> str | None:
        what = f"hook {name}{scope.place}"
        try:
            with anyio.fail_after(scope.hooks.timeout_s):
                ended = await run_program(
                    argv,
                    stdin=self._report(name, scope),
                    environment=self._environment(name, scope),
                    keep_bytes=KEEP_BYTES,
                )
            _tell(what, ended)
        except TimeoutError:
            return self._failed(name, scope, f"{what} was killed after {scope.hooks.timeout_s} s")
        except OSError as error:
            return self._failed(name, scope, f"{what}: cannot run {argv[0]}: {error.strerror}")
        if ended.returncode != 0:
            why = f": {ended.last_words:.{_SHOWN}}" if ended.stderr.strip() else ""
            return self._failed(name, scope, f"{what} exited with {ended.returncode}{why}")
        return None

    def _failed(self, name: str, scope: _HookScope, message: str) -> str:
        group = scope.group.name if scope.group else None
        self._emit(HookFailed(name, group, message))
        return message

    def _report(self, name: str, scope: _HookScope) -> bytes:
        done = [asdict(result) for result in scope.results if isinstance(result, BackupDone)]
        failed = [asdict(result) for result in scope.results if isinstance(result, BackupFailed)]
        report = {**_context(name, scope), "ok": not failed, "done": done, "failed": failed}
        return json.dumps(report).encode() + b"\n"

    def _environment(self, name: str, scope: _HookScope) -> Mapping[str, str]:
        heads = "\n".join(_heads(scope.results))
        context = {**_context(name, scope), "config": str(self._config.path), "heads": heads}
        ours = {f"VIRTBACKUP_{key.upper()}": value or "" for key, value in context.items()}
        return {**os.environ, **ours}


@asynccontextmanager
async def open_hooks(config: Config, plan: Plan, emit: Emit) -> AsyncGenerator[OpenHooks]:
    """Run ``before``; at the end, however that comes, ``on_failure`` and ``after``."""
    hooks = OpenHooks(config, plan, emit)
    try:
        await hooks.before()
        yield hooks
    finally:
        # Bounded: each hook has its own timeout.
        with anyio.CancelScope(shield=True):
            await hooks.after()


def _groups(planned: PlannedBackup) -> Sequence[str]:
    return (planned.group.name, *planned.also_in)


def _context(name: str, scope: _HookScope) -> dict[str, str | None]:
    group = scope.group
    return {
        "hook": name,
        "command": "backup",
        "group": group.name if group else None,
        "target": str(group.target) if group else None,
    }


def _heads(results: Iterable[Result]) -> Iterator[str]:
    """Yield a line for each new backup, by which it can be seen later that the target is older."""
    for done in results:
        if isinstance(done, BackupDone) and done.sequence is not None:
            yield f"{done.domain} {head_of(done.sequence, done.definition_hash or '')}"


def _tell(what: str, ended: Ended) -> None:
    """Log the hook's output, line by line."""
    level = logging.WARNING if ended.returncode else logging.INFO
    lines = (ended.stdout + ended.stderr).decode(errors="replace").splitlines()
    is_told = ended.returncode != 0 and bool(ended.stderr.strip())
    for number, line in enumerate(lines, 1):
        # The last line of a failed hook is in its event.
        in_event = is_told and number == len(lines) and len(line) <= _SHOWN
        _log.log(logging.INFO if in_event else level, "%s: %s", what, line)
    if ended.left_running:
        _log.info("%s: left a program running that still holds its output", what)
