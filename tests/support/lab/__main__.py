"""``python -m lab``: a guest by hand, and what scripts use of the lab.

::

    shell                 a daemon and a booted guest until Enter or Ctrl-C
    up [--owner PID]      the same in the background; prints one JSON object; ends with ``down``,
                          or by the next sweep once the owner is gone
    down ROOT             end what ``up`` made
    sweep                 end the roots of dead owners
    guest                 build the guest, print its two files
"""

import argparse
import json
import os
import sys
from pathlib import Path

from lab.disks import DiskSpec
from lab.domains import LabDomain, define, running
from lab.guest import build
from lab.libvirt_root import Daemon, make_daemon, open_daemon
from lab.process import LabError
from lab.roots import end_root, sweep

# Two formats, and a chain: what a backup has to know how to handle.
_DISKS = (DiskSpec("vda"), DiskSpec("vdb", format="raw"), DiskSpec("vdc", backing=1))


def main() -> int:
    """Run one command and return the exit code."""
    arguments = _parser().parse_args()
    try:
        _COMMANDS[arguments.command](arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)  # noqa: T201 -- a command of its own
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab")
    commands = parser.add_subparsers(dest="command", required=True)
    shell, up = commands.add_parser("shell"), commands.add_parser("up")
    for command in (shell, up):
        command.add_argument("--name", default="web-1", help="of the domain")
        command.add_argument("--writer", default="vda", help="the disk the guest keeps writing to")
    up.add_argument("--owner", type=int, default=os.getppid(), metavar="PID")
    commands.add_parser("down").add_argument("root", type=Path)
    commands.add_parser("sweep")
    commands.add_parser("guest")
    return parser


def _shell(arguments: argparse.Namespace) -> None:
    with open_daemon() as daemon:
        options = {"writer": arguments.writer}
        with running(daemon, arguments.name, _DISKS, **options) as domain:
            _say(daemon, domain)
            sys.stdin.readline()


def _up(arguments: argparse.Namespace) -> None:
    daemon = make_daemon(arguments.owner)
    try:
        daemon.start()
        domain = define(daemon, arguments.name, _DISKS, writer=arguments.writer)
        domain.start()
        domain.wait_booted()
        daemon.keep_capabilities()
    except BaseException:
        end_root(daemon.path)
        raise
    _say(daemon, domain)


def _down(arguments: argparse.Namespace) -> None:
    if not (arguments.root / "owner").is_file():
        raise LabError(f"{arguments.root} is not a root of the lab")
    end_root(arguments.root)


def _sweep(_: argparse.Namespace) -> None:
    for root in sweep():
        print(root)  # noqa: T201 -- a command of its own


def _guest(_: argparse.Namespace) -> None:
    guest = build()
    print(guest.kernel, guest.initramfs, sep="\n")  # noqa: T201 -- a command of its own


def _say(daemon: Daemon, domain: LabDomain) -> None:
    images = {dev: str(image) for dev, image in domain.images().items()}
    told = {
        "uri": daemon.uri,
        "root": str(daemon.path),
        "domain": domain.name,
        "images": images,
        "console": str(domain.console),
    }
    print(json.dumps(told, indent=2), flush=True)  # noqa: T201 -- a command of its own


_COMMANDS = {"shell": _shell, "up": _up, "down": _down, "sweep": _sweep, "guest": _guest}

if __name__ == "__main__":
    sys.exit(main())
