"""Writes a new configuration file, commented, from what was chosen; ``init`` is the caller.

Names come from libvirt and from mounted file systems, and YAML takes ``yes``, ``1e3`` and ``!x``
for other things than text. Invariant: the file that comes out is read back, means what was chosen,
and ``config check --strict`` has nothing to say about it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import yaml
from msgspec import Struct, field

from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.patterns import pattern_of
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.packager import SHARING_TYPE
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.version import __version__

ALL_DOMAINS = "r:.*"
_PLAIN = re.compile(r"^[A-Za-z/][A-Za-z0-9/._+@-]*$")
_LONGEST_LINE = 1 << 20


class NewHost(Struct, frozen=True):
    """A domain that is written by its name.

    Attributes:
        quiesce: None for what the group says.
        is_excluded: it is not backed up.
        why: a comment about it; empty for none.
    """

    name: str
    quiesce: bool | None = None
    is_excluded: bool = False
    why: str = ""


class NewConfig(Struct, frozen=True):
    """What a new configuration says.

    Attributes:
        uri: libvirt's.
        place: what is known of the target, for a comment; empty for nothing.
        group: the name of the one group.
        takes_all: it means every domain, and ``hosts`` are the exceptions; else only ``hosts``.
        keep: how many backups to keep, by the name of the rule.
    """

    uri: str
    target: Path
    place: str = ""
    group: str = "guests"
    packager: str = SHARING_TYPE
    threads: int = 2
    quiesce: bool = True
    takes_all: bool = True
    hosts: tuple[NewHost, ...] = ()
    keep: Mapping[str, int] = field(default_factory=dict)


def write_config(new: NewConfig, path: Path) -> str:
    """Return the text of the file; ``path`` is its name in messages.

    Raises:
        ConfigError: what was chosen cannot be written, or not so that it is read as it was meant.
    """
    text = "\n".join((*_head(new), *_default(new), *_group(new))) + "\n"
    config, problems = examine_text(text.encode(), path)
    problems.raise_errors()
    if problems.warnings:
        raise ConfigError("\n".join(map(str, problems.warnings)))
    (group,) = config.groups.values()
    chosen = (new.uri, StorageLocation.of(new.target), True)
    if (config.uri, group.target, group.autostart) != chosen:
        raise ConfigError("would be read as something else than was chosen", path=path)
    return text


def _head(new: NewConfig) -> Iterator[str]:
    yield "# The configuration of virtbackup: which domains are backed up, where to, how, and how"
    yield "# long the backups are kept. `virtbackup config example` shows every other key, and"
    yield "# `virtbackup config check` says whether a changed file can be used."
    yield f"# Written by `virtbackup init` {__version__}."
    yield ""
    yield "# Which libvirt to talk to."
    yield f"uri: {_scalar(new.uri)}"
    yield ""
    yield "# Domains backed up at the same time. 0: as many as there are CPUs."
    yield f"threads: {new.threads}"
    yield ""


def _default(new: NewConfig) -> Iterator[str]:
    yield "# What every group starts from; a group's own keys win."
    yield "default:"
    yield "  # The directory of the backups. It must exist: a disk that is not mounted is an error."
    if new.place:
        yield f"  # {_comment(new.place)}"
    yield f"  target: {_scalar(str(new.target))}"
    yield ""
    yield "  # repository: data that is equal in several backups is stored once, compressed, and a"
    yield "  # backup of a running guest reads only the changes. Others: zstd, tar, directory."
    yield f"  packager: {_scalar(new.packager)}"
    yield ""
    yield "  # How many backups `virtbackup clean` keeps: the newest ones (keep_last), and the"
    yield "  # first one of each of the last hours, days, weeks, months and years."
    yield '  # "*" (in quotes) keeps all of them, 0 none.'
    yield from (f"  {rule}: {number}" for rule, number in new.keep.items())
    yield ""


def _group(new: NewConfig) -> Iterator[str]:
    yield "groups:"
    yield f"  {_scalar(new.group)}:"
    yield "    # `virtbackup backup` without the name of a group backs this one up."
    yield "    autostart: true"
    yield ""
    yield "    # Freeze the guest's file systems for the moment of the snapshot. It needs the QEMU"
    yield "    # guest agent in the guest."
    yield f"    quiesce: {str(new.quiesce).lower()}"
    yield ""
    yield "    hosts:"
    if new.takes_all:
        yield "      # Every domain, also one that is defined later."
        yield f"      - {_scalar(ALL_DOMAINS)}"
    yield from _hosts(new.hosts, may_be_gone=new.takes_all)


def _hosts(hosts: Iterable[NewHost], *, may_be_gone: bool) -> Iterator[str]:
    for host in hosts:
        if host.why:
            yield f"      # {_comment(host.why)}"
        pattern = pattern_of(host.name, excludes=host.is_excluded, may_be_gone=may_be_gone)
        if host.quiesce is None or host.is_excluded:
            yield f"      - {_scalar(pattern)}"
        else:
            yield f"      - host: {_scalar(pattern)}"
            yield f"        quiesce: {str(host.quiesce).lower()}"


def _scalar(text: str) -> str:
    """Return a text in one line of YAML, without quotes where it is read as text without them."""
    if _PLAIN.match(text) and yaml.safe_load(text) == text:
        return text
    style = "'" if text.isprintable() else '"'
    written: str = yaml.safe_dump(
        text, default_style=style, width=_LONGEST_LINE, allow_unicode=True
    )
    return written.rstrip("\n")


def _comment(text: str) -> str:
    """Return a text from outside as a part of one line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )
