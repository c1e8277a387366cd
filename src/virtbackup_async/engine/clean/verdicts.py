"""What ``clean`` and ``forget`` say of a backup before they touch it."""

from collections.abc import Sequence
from itertools import chain

from anyio import to_thread

from virtbackup_async.engine.clean.broken import BrokenPackage
from virtbackup_async.engine.clean.retention import RetentionDecision
from virtbackup_async.engine.inventory.dates import date_of_name, local_time, time_of
from virtbackup_async.engine.inventory.freed import package_paths
from virtbackup_async.engine.inventory.occupied import occupied_by_each, occupied_bytes
from virtbackup_async.events import CleanVerdict


async def verdicts_on(group: str, decisions: Sequence[RetentionDecision]) -> list[CleanVerdict]:
    """Return the verdicts on complete backups of a group, in the order of the decisions."""
    return await to_thread.run_sync(_verdicts, group, decisions)


def _verdicts(group: str, decisions: Sequence[RetentionDecision]) -> list[CleanVerdict]:
    files = [(*package_paths(one.found), one.found.path) for one in decisions]
    taken = occupied_by_each(chain.from_iterable(files))
    return [
        _verdict(group, decision, sum(taken[file] for file in own))
        for decision, own in zip(decisions, files, strict=True)
    ]


def _verdict(group: str, decision: RetentionDecision, occupied_bytes: int) -> CleanVerdict:
    definition = decision.found.definition
    images = definition.images
    return CleanVerdict(
        group=group,
        domain=definition.domain_name,
        backup=definition.name,
        date=local_time(definition).isoformat(),
        definition=str(decision.found.path),
        keep=decision.keep,
        reasons=decision.reasons,
        damaged=definition.is_damaged,
        occupied_bytes=occupied_bytes,
        stored_bytes=sum(image.stored_bytes for image in images) if images else None,
        uuid=definition.domain_uuid,
        host=definition.host,
    )


async def verdict_on_broken(
    group: str, domain: str, broken: BrokenPackage, *, keep: bool, reasons: Sequence[str]
) -> CleanVerdict:
    """Return the verdict on a broken backup; its date is that in its name, or empty."""
    date = date_of_name(broken.name)
    return CleanVerdict(
        group=group,
        domain=domain,
        backup=broken.name,
        date="" if date is None else time_of(date).isoformat(),
        definition=str(broken.path),
        keep=keep,
        reasons=tuple(reasons),
        occupied_bytes=await occupied_bytes([*broken.files, broken.path]),
        broken=True,
    )
