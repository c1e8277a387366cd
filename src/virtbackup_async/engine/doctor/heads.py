"""Whether a target is as new as this host has seen it, and none of its definitions another."""

from collections.abc import Iterator, Sequence

from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Group
from virtbackup_async.engine.heads.memory import (
    ANOTHER,
    ANOTHER_ADVICE,
    OF_ANOTHER,
    UNREADABLE,
    Comparison,
    compare,
)
from virtbackup_async.engine.host_state import Host
from virtbackup_async.events import Finding, Level

CHECK = "heads"


async def check_heads(
    host: Host, catalog: Catalog, groups: Sequence[Group], scan: Scan
) -> list[Finding]:
    """Compare the definitions of the groups' domains with what this host remembers."""

    def includes(domain: str) -> bool:
        return any(group.includes(domain) for group in groups)

    compared = await compare(host, catalog, scan, includes)
    return list(judge_heads(str(catalog.target), compared))


def judge_heads(subject: str, compared: Comparison) -> Iterator[Finding]:
    """Return the findings about a target."""
    for found in compared.contradictions:
        yield Finding(
            Level.PROBLEM, CHECK, found.domain, found.message, found.advice, code=found.code
        )
    for problem in compared.problems:
        message = f"what this host remembers of the target cannot be read: {problem}"
        advice = "Compare the target with the last notification, then run `virtbackup accept`."
        yield Finding(Level.WARNING, CHECK, subject, message, advice, code=UNREADABLE)
    remembered = compared.remembered
    if compared.is_of_another:
        yield Finding(Level.WARNING, CHECK, subject, ANOTHER, ANOTHER_ADVICE, code=OF_ANOTHER)
        return
    if remembered is None or not compared.domains:
        return
    if compared.problems:
        return
    elif not remembered.domains:
        message = "this host has seen nothing of it yet, so it cannot know whether it is older"
        advice = "Compare `virtbackup show` with the last notification."
        yield Finding(Level.INFO, CHECK, subject, message, advice, code="heads_unknown")
    elif not compared.contradictions:
        message = "no backup is older than this host has seen it"
        yield Finding(Level.OK, CHECK, subject, message, code="heads_good")
