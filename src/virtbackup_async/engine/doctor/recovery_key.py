"""Does an encrypted target have a key that survives the loss of this host?"""

from virtbackup_async.engine.inventory.recovery_key import missing_recovery_key, public_key_problem
from virtbackup_async.events import Finding, Level
from virtbackup_async.model.storage_location import StorageLocation

CHECK = "keys"


def check_recovery_key(target: StorageLocation, group: str | None = None) -> list[Finding]:
    """Warn of a repository that only keys on hosts open, or that no host can seal for. Blocks.

    Args:
        target: the target; nothing is asked of one that is not encrypted.
        group: one of those whose target it is.
    """
    if (problem := public_key_problem(target)) is not None:
        return [
            Finding(
                Level.PROBLEM,
                CHECK,
                str(target),
                problem.message,
                problem.hint,
                code="public_key_unusable",
            )
        ]
    lack = missing_recovery_key(target)
    if lack is None:
        return []
    words = f" {group}" if group else ""
    advice = f"Run 'virtbackup key paper{words}', and keep the print away from this host."
    return [Finding(Level.WARNING, CHECK, str(target), lack, advice, code="no_recovery_key")]
