"""States of a domain that its backups can do less with: saved, suspended."""

from virtbackup_async.engine.domain_states import SAVED
from virtbackup_async.events import Finding, Level
from virtbackup_async.model.domain import DomainInfo

CHECK = "domain"


def check_state(info: DomainInfo) -> list[Finding]:
    """Say what a domain's state means for its backups; nothing of one that runs or is shut off."""
    if info.is_saved:
        advice = "Start it before its backup; restore --in-place refuses it as it is."
        return [Finding(Level.WARNING, CHECK, info.name, SAVED, advice)]
    if info.is_suspended:
        message = "the guest is suspended: only `method: pull` can back it up, not quiesced"
        advice = f"Wake it up: virsh dompmwakeup {info.name}"
        return [Finding(Level.WARNING, CHECK, info.name, message, advice)]
    return []
