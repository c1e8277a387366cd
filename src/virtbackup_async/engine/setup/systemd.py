"""Installs the systemd units of this installation, and removes them again.

Each file that it writes contains a mark. A file without the mark belongs to the admin, and is not
touched. A second installation changes nothing.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import platformdirs
from anyio import to_thread
from msgspec import Struct

from virtbackup_async.engine.setup.units import AT_BOOT, MARK, TIMERS, Unit
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Emit, Finding, Level
from virtbackup_async.files.directories import make_directories
from virtbackup_async.files.durable import remove_durably, write_atomically
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.processes import run_program

CHECK: Final = "systemd"
SYSTEM_UNITS: Final = Path("/etc/systemd/system")
_BOOTED: Final = Path("/run/systemd/system")
_UNIT_MODE = 0o644
_DIRECTORY_MODE = 0o755
_KEEP_BYTES = 64 * 1024


class SystemdRequest(Struct, frozen=True):
    """Where to install units, and how.

    Attributes:
        directory: of the units.
        user: whether they are for the service manager of this user, not for the system's.
        force: whether to replace the admin's files.
        runs_here: whether systemd runs, so that units can be enabled.
    """

    directory: Path
    user: bool = False
    force: bool = False
    runs_here: bool = False


def unit_directory(*, user: bool) -> Path:
    """Return the directory in which systemd finds the units of the admin, or of a user."""
    return platformdirs.user_config_path("systemd") / "user" if user else SYSTEM_UNITS


def runs_here(*, user: bool) -> bool:
    """Return whether systemd runs, so that units can be enabled. Blocks."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") if user else None
    return _BOOTED.is_dir() and (not user or (runtime is not None and Path(runtime).is_dir()))


async def install_units(units: Sequence[Unit], request: SystemdRequest, emit: Emit) -> None:
    """Write the units, and let systemd start them from now on.

    Raises:
        StorageError: one of the admin's files has a unit's name, or a unit cannot be written.
    """
    changed = await to_thread.run_sync(_changed, units, request)
    for unit in units:
        path = request.directory / unit.name
        if unit in changed:
            await _write(path, unit.text)
        message = "written" if unit in changed else "is as it should be"
        emit(Finding(Level.OK, CHECK, str(path), message, code="unit_written"))
    await _verify(units, request, emit)
    commands = (
        ("daemon-reload",),
        ("enable", "--now", *TIMERS),
        ("enable", AT_BOOT),
    )
    await _control(commands, request, emit)
    if request.user:
        message = "timers of a user run while the user is logged in"
        advice = "For every night: loginctl enable-linger"
        emit(
            Finding(
                Level.INFO, CHECK, str(request.directory), message, advice, code="timers_of_user"
            )
        )


async def uninstall_units(units: Sequence[Unit], request: SystemdRequest, emit: Emit) -> None:
    """Stop the timers, and remove the units that were installed.

    Raises:
        StorageError: one cannot be removed.
    """
    ours = await to_thread.run_sync(_ours, units, request.directory)
    if not ours:
        message = "has no unit that `virtbackup systemd install` wrote"
        emit(Finding(Level.OK, CHECK, str(request.directory), message, code="no_units"))
        return
    names = [path.name for path in ours if path.name in {*TIMERS, AT_BOOT}]
    await _control((("disable", "--now", *names),) if names else (), request, emit)
    for path in ours:
        await remove_durably(path)
        emit(Finding(Level.OK, CHECK, str(path), "removed", code="unit_removed"))
    for directory in {path.parent for path in ours} - {request.directory}:
        with suppress(OSError):  # it contains the admin's own files
            await to_thread.run_sync(directory.rmdir)
    await _control((("daemon-reload",),), request, emit)


def _changed(units: Sequence[Unit], request: SystemdRequest) -> list[Unit]:
    """Return the units to write; refuse before anything is written."""
    changed = []
    for unit in units:
        path = request.directory / unit.name
        there = _read(path)
        if there is not None and MARK not in there and not request.force:
            raise StorageError(
                f"{path} was not written by this command",
                hint="Move it away, or replace it with --force.",
            )
        if there != unit.text:
            changed.append(unit)
    return changed


def _ours(units: Sequence[Unit], directory: Path) -> list[Path]:
    paths = [directory / unit.name for unit in units]
    return [path for path in paths if MARK in (_read(path) or "")]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error


async def _write(path: Path, text: str) -> None:
    try:
        await to_thread.run_sync(make_directories, path.parent, _DIRECTORY_MODE)
        await write_atomically(path, text.encode())
        await to_thread.run_sync(os.chmod, path, _UNIT_MODE)
    except OSError as error:
        raise storage_error("write", path, error) from error


async def _verify(units: Sequence[Unit], request: SystemdRequest, emit: Emit) -> None:
    """Let systemd check the units, if its tool is installed."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        return
    of_user = ("--user",) if request.user else ()
    paths = [str(request.directory / unit.name) for unit in units if "/" not in unit.name]
    argv = (tool, *of_user, "verify", "--man=no", *paths)
    ended = await run_program(argv, keep_bytes=_KEEP_BYTES)
    said = ended.stderr.decode(errors="replace").splitlines()
    # It also reads the host's other units, and complains about them.
    for line in dict.fromkeys(line for line in said if "virtbackup" in line):
        emit(Finding(Level.WARNING, CHECK, "systemd-analyze verify", line, code="unit_doubtful"))


async def _control(commands: Sequence[Sequence[str]], request: SystemdRequest, emit: Emit) -> None:
    """Run commands of systemctl; without a running systemd, report the commands to run."""
    of_user = ("--user",) if request.user else ()
    for words in commands:
        line = " ".join(("systemctl", *of_user, *words))
        if not request.runs_here:
            advice = "Run it where it does."
            emit(
                Finding(
                    Level.INFO,
                    CHECK,
                    line,
                    "not run: systemd does not run here",
                    advice,
                    code="systemctl_not_run",
                )
            )
            continue
        try:
            ended = await run_program(("systemctl", *of_user, *words), keep_bytes=_KEEP_BYTES)
            trouble = ended.last_words if ended.returncode else None
        except OSError as error:
            trouble = f"cannot be started: {error.strerror}"
        if trouble is None:
            emit(Finding(Level.OK, CHECK, line, "done", code="systemctl_done"))
        else:
            emit(
                Finding(
                    Level.PROBLEM, CHECK, line, trouble, "Run it by hand.", code="systemctl_failed"
                )
            )
