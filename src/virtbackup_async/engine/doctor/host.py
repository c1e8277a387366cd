"""The host: versions of libvirt and QEMU, and a clock that can be trusted."""

from collections.abc import Iterator
from typing import NamedTuple

import anyio

from virtbackup_async.events import Finding, Level
from virtbackup_async.model.host import HostVersions, Version
from virtbackup_async.processes import run_program

SUBJECT = "host"
CLOCK_TIMEOUT_S = 5


class _Need(NamedTuple):
    """What does not work below a version; the first that applies to a program is told."""

    program: str
    below: Version
    level: Level
    lost: str


# Sources: libvirt's news (virDomainAgentSetResponseTimeout 5.10; QEMU by -blockdev from 6.0 on),
# QEMU's changelog (what libvirt's -blockdev needs: 4.2).
_NEEDS = (
    _Need("libvirt", (5, 10, 0), Level.PROBLEM, "no backup with quiesce can be made"),
    _Need("libvirt", (6, 0, 0), Level.WARNING, "block jobs by -blockdev, which backups rely on"),
    _Need("QEMU", (4, 2, 0), Level.WARNING, "block jobs by -blockdev, which backups rely on"),
)


def check_versions(versions: HostVersions) -> Iterator[Finding]:
    """Say which versions there are, and what is too old for them to do."""
    if versions.driver != "QEMU":
        yield Finding(
            Level.PROBLEM,
            "versions",
            SUBJECT,
            f"the hypervisor is {versions.driver}, only QEMU is supported",
            "Check `uri` in the configuration.",
        )
        return
    for program, version in (("libvirt", versions.libvirt), ("QEMU", versions.hypervisor)):
        yield _judge(program, version)


def _judge(program: str, version: Version) -> Finding:
    text = f"{program} {'.'.join(map(str, version))}"
    for need in _NEEDS:
        if need.program == program and version < need.below:
            wanted = ".".join(map(str, need.below))
            message = f"{text} is older than {wanted}: {need.lost}"
            if need.level is Level.WARNING:
                message = f"{text} is older than {wanted} and lacks {need.lost}"
            return Finding(need.level, "versions", SUBJECT, message, f"Update {program}.")
    return Finding(Level.OK, "versions", SUBJECT, text)


async def check_clock() -> list[Finding]:
    """Ask systemd whether the clock is synchronized; nothing where it cannot say."""
    argv = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
    answer = ""
    with anyio.move_on_after(CLOCK_TIMEOUT_S):
        try:
            answer = (await run_program(argv)).stdout.decode(errors="replace").strip()
        except OSError:
            return []
    return list(judge_clock(answer))


def judge_clock(answer: str) -> Iterator[Finding]:
    """Turn the answer of ``timedatectl`` into a finding, if it is one."""
    if answer == "yes":
        yield Finding(Level.OK, "clock", SUBJECT, "the clock is synchronized")
    elif answer == "no":
        yield Finding(
            Level.WARNING,
            "clock",
            SUBJECT,
            "the clock is not synchronized: backups are dated, and kept, by it",
            "Turn on systemd-timesyncd or chrony.",
        )
