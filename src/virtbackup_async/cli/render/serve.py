"""Prints where a backup is served, and commands to paste into another terminal.

::

    web: serving 20260701-030000_3_web until Ctrl-C
    vda  40.0 GiB  nbd+unix:///vda?socket=/tmp/virtbackup-serve-k2x/socket

    qemu-img info 'nbd+unix:///vda?socket=/tmp/virtbackup-serve-k2x/socket'
    nbdcopy 'nbd+unix:///vda?socket=/tmp/virtbackup-serve-k2x/socket' vda.raw
    guestfish --ro --format=raw -a 'nbd:///vda?socket=/tmp/virtbackup-serve-k2x/socket' -i
"""

import shlex
import sys

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.lines import print_command, print_line
from virtbackup_async.model.amounts import size

_COLUMNS = (Column("dev"), Column("disk"), Column("address", wraps=True))
_UNCHECKED = (
    "What is read is not compared with the recorded digests: `virtbackup verify` does that."
)


def print_served(console: Console, event: events.Event) -> None:
    """Print the disks, and what to do with the first one; nothing for other events."""
    if not isinstance(event, events.BackupServed):
        return
    print_line(console, f"{event.domain}: serving {event.backup} until Ctrl-C", "bold")
    print_columns(console, _COLUMNS, [_row(disk) for disk in event.disks])
    if not all(disk.checked for disk in event.disks):
        print_line(console, _UNCHECKED)
    print_line(console, "")
    first = event.disks[0]
    for command in _commands(first.disk, first.uri):
        print_command(console, command)
    # The command goes on, and its output may be a pipe.
    sys.stdout.flush()


def _row(disk: events.ServedDisk) -> Row:
    return {"dev": disk.disk, "disk": size(disk.size_bytes), "address": disk.uri}


def _commands(disk: str, uri: str) -> list[str]:
    # libguestfs knows the scheme without the transport.
    short = uri.replace("nbd+unix://", "nbd://", 1)
    words = (
        ("qemu-img", "info", uri),
        ("nbdcopy", uri, f"{disk}.raw"),
        ("guestfish", "--ro", "--format=raw", "-a", short, "-i"),
    )
    return [shlex.join(command) for command in words]
