"""What the backups hold and take in text: a line a domain, then a line a repository (``stats``).

::

    group  domain  backups  size       data      stored   ratio
    main   web     14       280.0 GiB  57.4 GiB  5.1 GiB  11.3
    /mnt/backups: repository: 57.4 GiB of data in 5.0 GiB: 11.5 to 1
"""

from msgspec import Struct, field
from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.text import printable, size
from virtbackup_async.events import DomainStats, Event, RepositoryStats, Summary

_COLUMNS = tuple(map(Column, ("group", "domain", "backups", "size", "data", "stored", "ratio")))


class Stats(Struct):
    """Collects the figures and prints them at the end."""

    domains: list[DomainStats] = field(default_factory=list)
    repositories: list[RepositoryStats] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Remember figures; the other events pass."""
        match event:
            case DomainStats():
                self.domains.append(event)
            case RepositoryStats():
                self.repositories.append(event)
            case _:
                pass

    def print(self, console: Console, summary: Summary) -> None:  # noqa: ARG002 -- the protocol's
        """Write them."""
        if self.domains:
            print_columns(console, _COLUMNS, [_row(domain) for domain in self.domains])
        for store in self.repositories:
            line = (
                f"{store.target}: repository: {size(store.data_bytes)} of data in "
                f"{size(store.stored_bytes)}: {_ratio(store.data_bytes, store.stored_bytes)} to 1"
            )
            console.print(Text(printable(line)), soft_wrap=True)


def _row(domain: DomainStats) -> Row:
    return {
        "group": domain.group,
        "domain": domain.domain,
        "backups": str(domain.backups),
        "size": size(domain.size_bytes),
        "data": size(domain.data_bytes),
        "stored": size(domain.stored_bytes),
        "ratio": _ratio(domain.data_bytes, domain.stored_bytes),
    }


def _ratio(data_bytes: int, stored_bytes: int) -> str:
    return f"{data_bytes / stored_bytes:.1f}" if stored_bytes else "-"
