"""Every error that the program raises on purpose, with its exit code.

::

    VirtBackupError                   1
    ├── ConfigError                   2   the configuration or the command line
    ├── BackupsFailedError            3   some backups of the run failed
    │   └── UnusualChangeError            a guest's data changed suddenly, clean keeps its backups
    ├── HypervisorError              10   libvirt or QEMU said no
    │   ├── ConnectionFailedError         the connection could not be opened
    │   ├── ConnectionLostError           it was there, and went away
    │   ├── DomainNotFoundError           no domain of that name
    │   ├── DomainGoneError               it stopped or was undefined while we worked on it
    │   ├── DiskNotFoundError             the domain has no such disk
    │   ├── CallRefusedError              libvirt answered a call with any other error
    │   ├── SnapshotError                 the external snapshot was refused
    │   │   └── QuiesceError              only because the guest could not be frozen
    │   └── BlockJobError                 a block job failed, was cancelled or never got ready
    ├── LockHeldError                11   somebody else works on that domain
    ├── NotFoundError                12   no such group, backup or date
    ├── CorruptError                 13   data that is not what was written
    │   ├── DefinitionError               a definition or pending file that cannot be understood
    │   ├── DigestMismatchError           restored bytes differ from the recorded digest
    │   ├── NewerVersionError             a newer program wrote it, and can read it
    │   └── ForeignRepositoryError        it belongs to another repository
    ├── RollbackError                14   something is left to clean
    ├── NbdError                     20   an NBD server, or the way to it
    │   ├── NbdConnectionError            no connection, or it broke: connect again
    │   ├── NbdRefusedError               it does not offer what is asked: never ask again
    │   ├── NbdProtocolError              it broke the protocol: trust nothing of the connection
    │   └── NbdRequestError               one request failed, the connection is good
    ├── ImageError                   21   an image cannot be read or written; qemu-img failed
    │   └── ChangedMeanwhileError         it changed while it was read: read it again
    ├── StorageError                 22   the target is missing or not writable
    │   └── StorageFullError              it is full: no space, or no inode
    └── HookError                    23   a command of the configuration failed

A signal ends the command with 128 plus its number. Messages are one line, lower case, without a
final period: what, where. ``hint`` is a sentence: what to do.
"""

import re
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar, Final, Self, TypeVar

E = TypeVar("E", bound="VirtBackupError")


class VirtBackupError(Exception):
    """The root of the tree; raised itself only where nothing below fits."""

    exit_code: ClassVar[int] = 1
    exit_meaning: ClassVar[str] = "unexpected error"

    def __init__(
        self,
        reason: str,
        *,
        hint: str | None = None,
        domain: str | None = None,
        disk: str | None = None,
        path: object = None,
    ) -> None:
        """Say what went wrong, and where.

        Args:
            reason: what went wrong, without the domain and the path.
            hint: a sentence that says what to do.
            domain: the domain that it concerns; begins the message.
            disk: the disk (``vda``); the reason names it where people need it.
            path: the file that it concerns, perhaps with a line; begins the message.
        """
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.domain = domain
        self.disk = disk
        self.path = path

    @property
    def message(self) -> str:
        """Where, and what went wrong."""
        where = (self.domain, self.path)
        return ": ".join([*(str(place) for place in where if place is not None), self.reason])

    @property
    def code(self) -> str:
        """The kind of the error for programs: ``StorageFullError`` is ``storage_full``."""
        return code_of(type(self))

    @property
    def cause(self) -> BaseException | None:
        """The error that led to this one."""
        return self.__cause__

    def __str__(self) -> str:
        return _sentences(self.message, self.hint)

    def within(self, domain: str) -> str:
        """Return the message for a place that names the domain already."""
        return self._without(domain, None).message

    def sentences_within(self, domain: str | None = None, path: object = None) -> str:
        """Return message and hint for a place that names the domain or the path already."""
        return str(self._without(domain, path))

    def as_kind(self, kind: type[E], *, hint: str | None = None) -> E:
        """Return an error of another kind with the same reason and places, and its own hint."""
        return kind(
            self.reason,
            hint=hint,
            domain=self.domain,
            disk=self.disk,
            path=self.path,
        )

    def _without(self, domain: str | None, path: object) -> "VirtBackupError":
        return VirtBackupError(
            self.reason,
            hint=self.hint,
            domain=None if self.domain == domain else self.domain,
            path=None if self.path == path else self.path,
        )


def _sentences(message: str, hint: str | None) -> str:
    end = "" if message.endswith("?") else "."
    return f"{message}{end} {hint}" if hint else message


@contextmanager
def about_disk(dev: str) -> Generator[None]:
    """Set the disk of an error that leaves the block, unless it names a disk already."""
    try:
        yield
    except (VirtBackupError, BaseExceptionGroup) as error:
        _set_disk(error, dev)
        raise


def _set_disk(error: BaseException, dev: str) -> None:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _set_disk(inner, dev)
    elif isinstance(error, VirtBackupError) and error.disk is None:
        error.disk = dev


class ConfigError(VirtBackupError):
    """The configuration file or the command line cannot be used as it is."""

    exit_code = 2
    exit_meaning = "wrong usage or configuration"


class BackupsFailedError(VirtBackupError):
    """The run went to its end, and some of its backups failed, or `doctor` found problems."""

    exit_code = 3
    exit_meaning = "some backups failed or problems were found"


class UnusualChangeError(BackupsFailedError):
    """A guest's data changed suddenly, so `clean` removes none of its backups from before that."""


class HypervisorError(VirtBackupError):
    """libvirt or QEMU refused or failed."""

    exit_code = 10
    exit_meaning = "libvirt"


class ConnectionFailedError(HypervisorError):
    """The connection to libvirt could not be opened."""


class ConnectionLostError(HypervisorError):
    """The connection to libvirt broke while it was used."""


DOMAINS_HINT: Final = "`virsh list --all` shows the domains."


class DomainNotFoundError(HypervisorError):
    """The hypervisor knows no such domain."""


class DomainGoneError(HypervisorError):
    """The domain stopped, or was undefined, while we worked on it."""


class DiskNotFoundError(HypervisorError):
    """The domain has no disk of that name, or none that can be backed up."""


class CallRefusedError(HypervisorError):
    """libvirt answered a call with an error of its own, for which there is no kind here."""


class SnapshotError(HypervisorError):
    """The external snapshot was refused."""


class QuiesceError(SnapshotError):
    """The snapshot was refused only because the guest could not be frozen."""


class BlockJobError(HypervisorError):
    """A block job failed, was cancelled, or did not get ready in time."""


LOCK_HINT: Final = "Wait for it, with --wait, or stop it."


class LockHeldError(VirtBackupError):
    """Another process, or another task of this one, works on the same domain."""

    exit_code = 11
    exit_meaning = "locked"


class NotFoundError(VirtBackupError):
    """There is no such group, backup or date."""

    exit_code = 12
    exit_meaning = "not found"


REPAIR_HINT: Final = "Run 'virtbackup repair'."
"""The hint of a damaged repository."""
SEALED_HINT: Final = "Give --recovery, which asks for the recovery key, or --recovery-file FILE."
"""The hint where a sealed repository is to be read."""


class CorruptError(VirtBackupError):
    """Data is not what was once written."""

    exit_code = 13
    exit_meaning = "corrupt data"

    def reworded(self, message: str, hint: str | None = None) -> Self:
        """Return an error of the same kind with another message; ``hint`` if it has none yet."""
        return type(self)(message, hint=self.hint or hint)


class DefinitionError(CorruptError):
    """A definition or a pending file is damaged, hostile or from the future."""


class DigestMismatchError(CorruptError):
    """The bytes that were read do not have the digest that was recorded."""


class NewerVersionError(CorruptError):
    """A newer program wrote the data; it may be whole, so it is never repaired or removed."""

    def __init__(self, message: str, *, hint: str | None = "Use a newer program.") -> None:
        super().__init__(message, hint=hint)


class ForeignRepositoryError(CorruptError):
    """A file belongs to another repository; it may be whole, so it is never repaired or removed."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = "Copy a target as a whole, its repository included.",
    ) -> None:
        super().__init__(message, hint=hint)


CLEAN_HINT = "Fix the cause, then run `virtbackup clean -b`."


class RollbackError(VirtBackupError):
    """An undo step failed: the pending file stays, and says what is left to clean."""

    exit_code = 14
    exit_meaning = "something is left to clean"


class NbdError(VirtBackupError):
    """An NBD server, or the way to it, failed; what may be done next tells the kinds apart."""

    exit_code = 20
    exit_meaning = "NBD"

    def at(self, where: str) -> Self:
        """Return the same error with the server's name before the message."""
        self.reason = f"{where}: {self.reason}"
        return self


class NbdConnectionError(NbdError):
    """There is no connection to an NBD server, or it broke; a new one may succeed."""


class NbdRefusedError(NbdError):
    """An NBD server does not offer what is asked of it; asking again is of no use."""


class NbdProtocolError(NbdError):
    """An NBD server broke the protocol: the connection was dropped, and nothing it said counts."""


class NbdRequestError(NbdError):
    """An NBD server could not do one request; the connection is good for others.

    ``errno`` is the protocol's own number: one of EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW,
    ENOTSUP, or what the server made up.
    """

    def __init__(self, message: str, *, errno: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class ImageError(VirtBackupError):
    """A disk image cannot be read or written, or a QEMU tool failed on it."""

    exit_code = 21
    exit_meaning = "disk image"


class ChangedMeanwhileError(ImageError):
    """An image, or the domain that uses it, changed while the image was read; a retry may work."""


class StorageError(VirtBackupError):
    """A target or a destination directory is missing, not writable or full."""

    exit_code = 22
    exit_meaning = "storage"


class StorageFullError(StorageError):
    """A target or a destination directory has no space or no inode left, or a quota is reached."""


class HookError(VirtBackupError):
    """A command that the configuration names failed, or could not be run."""

    exit_code = 23
    exit_meaning = "hook"


def code_of(kind: type[BaseException]) -> str:
    """Return what programs know a kind of error by, ``unexpected`` for one that is not ours."""
    if not issubclass(kind, VirtBackupError):
        return "unexpected"
    # What a module knows on top of that, as ChecksumError, is known by its base: see errors.md.
    public = next(each for each in kind.__mro__ if each.__module__ == __name__)
    name = public.__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def exit_meanings() -> dict[int, str]:
    """Return what each exit code of an error means, in a word or a few, as every help shows it."""
    kinds: list[type[VirtBackupError]] = [VirtBackupError, *VirtBackupError.__subclasses__()]
    return {kind.exit_code: kind.exit_meaning for kind in kinds}


def install_hint(packages: str) -> str:
    """Return the advice to install optional packages where this program is installed."""
    return f"Run `{shlex.quote(sys.executable)} -m pip install {packages}`."
