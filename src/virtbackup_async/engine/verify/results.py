"""The result of verifying a backup: its last event, and an entry in its definition.

It is the same for every packager. Invariant: only the key ``verified`` is ever written.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import asdict

from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import may_be_there
from virtbackup_async.engine.outcome import known_error
from virtbackup_async.errors import CorruptError, NotFoundError, VirtBackupError
from virtbackup_async.events import Emit, VerifyDone, VerifyFailed, Warned
from virtbackup_async.model.backup import Verification


class Amount(Enum):
    """How much of a backup was read."""

    ALL = "all"
    SOME = "some of the data of its target, chosen at random"
    NOTHING = "nothing: it is there, as far as lengths show"


class SelectedBackup(Struct, frozen=True):
    """A backup to verify, and the group that selected it."""

    group: str
    found: FoundBackup

    @property
    def domain(self) -> str:
        return self.found.definition.domain_name

    @property
    def name(self) -> str:
        return self.found.definition.name

    @property
    def uuid(self) -> str | None:
        return self.found.definition.domain_uuid


class Results(Struct, frozen=True):
    """Reports the results of one run, and records them in the definitions.

    Attributes:
        now: the time that is recorded with each result.
        quick: whether only sizes are checked; then no backup is recorded as good.
        emit: where events go.
    """

    now: datetime
    quick: bool
    emit: Emit

    async def good(
        self,
        chosen: SelectedBackup,
        *,
        digests: bool,
        data_bytes: int,
        duration_s: float,
        amount: Amount = Amount.ALL,
    ) -> None:
        """Report a backup whose data match its record, as far as they were read.

        Args:
            chosen: the backup.
            digests: whether it has any.
            data_bytes: of its images.
            duration_s: how long that took.
            amount: how much of it was read: only of all is it recorded as good.
        """
        quick = self.quick or amount is not Amount.ALL
        if not quick:
            await self._keep(chosen, ok=True, digests=digests)
        self.emit(
            VerifyDone(
                group=chosen.group,
                domain=chosen.domain,
                backup=chosen.name,
                definition=str(chosen.found.path),
                digests=digests and not quick,
                data_bytes=data_bytes,
                duration_s=round(duration_s, 3),
                quick=quick,
                lacks=tuple(chosen.found.definition.lacks),
                uuid=chosen.uuid,
                partly=not self.quick and amount is Amount.SOME,
            )
        )

    async def bad(self, chosen: SelectedBackup, error: Exception) -> None:
        """Report a backup that is damaged, or could not be read."""
        if not isinstance(error, VirtBackupError):
            self._fail(chosen, known_error(chosen.name, error))
            return
        if not await to_thread.run_sync(may_be_there, chosen.found.path):
            self.emit(Warned(f"{chosen.name} was removed while it was read", chosen.domain))
            return
        if isinstance(error, CorruptError):
            # A failed read (permission, I/O) says nothing about the backup itself.
            await self._keep(chosen, ok=False, digests=True, error=error.message)
        self._fail(chosen, error)

    def _fail(self, chosen: SelectedBackup, error: VirtBackupError) -> None:
        self.emit(
            VerifyFailed(
                chosen.group,
                chosen.domain,
                chosen.name,
                error.message,
                error.exit_code,
                error.code,
                error.hint,
                chosen.uuid,
            )
        )

    async def _keep(
        self, chosen: SelectedBackup, *, ok: bool, digests: bool, error: str | None = None
    ) -> None:
        found = Verification(int(self.now.timestamp()), ok, digests, error)
        try:
            await amend_definition(chosen.found.path, {"verified": asdict(found)})
        except NotFoundError as gone:
            self.emit(Warned(gone.message, chosen.domain))
        except VirtBackupError as refused:
            message = f"the result cannot be kept, `list` will not show it: {refused.message}"
            self.emit(Warned(message, chosen.domain))


def joined(failures: Sequence[VirtBackupError]) -> VirtBackupError:
    """Return one error for all failures of a backup, as severe as the worst."""
    message = "; ".join(error.message for error in failures)
    kinds = [type(error) for error in failures]
    grave = next((kind for kind in kinds if issubclass(kind, CorruptError)), kinds[0])
    error = grave(message)
    error.__cause__ = failures[0]
    return error
