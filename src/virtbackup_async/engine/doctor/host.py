"""The host: the versions of libvirt and QEMU, and whether the clock can be trusted."""

from collections.abc import Iterator
from typing import NamedTuple

import anyio

from virtbackup_async.events import Finding, Level
from virtbackup_async.model.domain import HostVersions, Version
from virtbackup_async.processes import run_program

SUBJECT = "host"
CLOCK_TIMEOUT_S = 5


class _Need(NamedTuple):
    """A loss below a version; only the first that applies to a program is reported."""

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


class _Defect(NamedTuple):
    """A defect of libvirt from one version on, and the version that fixes it."""

    since: Version
    fixed: Version
    what: str


# Source: libvirt's news of the versions with the fixes.
_DEFECTS = (
    _Defect((9, 0, 0), (9, 1, 0), "may not take note of the end of a block job"),
    _Defect(
        (7, 6, 0), (10, 8, 0), "may crash when a domain is monitored while `method: pull` reads it"
    ),
)


def check_versions(versions: HostVersions) -> Iterator[Finding]:
    """Report the versions, and the features that they are too old for."""
    if versions.driver != "QEMU":
        yield Finding(
            Level.PROBLEM,
            "versions",
            SUBJECT,
            f"the hypervisor is {versions.driver}, only QEMU is supported",
            "Check `uri` in the configuration.",
            code="not_qemu",
        )
        return
    for program, version in (("libvirt", versions.libvirt), ("QEMU", versions.hypervisor)):
        yield _judge(program, version)
    for defect in _DEFECTS:
        if defect.since <= versions.libvirt < defect.fixed:
            message = f"libvirt {_dotted(versions.libvirt)} {defect.what}"
            fix = f"libvirt {_dotted(defect.fixed)} has the fix."
            advice = f"The backup goes on or is undone. {fix}"
            yield Finding(Level.INFO, "versions", SUBJECT, message, advice, code="libvirt_defect")


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _judge(program: str, version: Version) -> Finding:
    text = f"{program} {_dotted(version)}"
    for need in _NEEDS:
        if need.program == program and version < need.below:
            wanted = _dotted(need.below)
            message = f"{text} is older than {wanted}: {need.lost}"
            if need.level is Level.WARNING:
                message = f"{text} is older than {wanted} and lacks {need.lost}"
            return Finding(
                need.level,
                "versions",
                SUBJECT,
                message,
                f"Update {program}.",
                code="version_too_old",
            )
    return Finding(Level.OK, "versions", SUBJECT, text, code="version")


async def check_clock() -> list[Finding]:
    """Ask systemd whether the clock is synchronized; no finding if it cannot tell."""
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
        yield Finding(
            Level.OK, "clock", SUBJECT, "the clock is synchronized", code="clock_synchronized"
        )
    elif answer == "no":
        yield Finding(
            Level.WARNING,
            "clock",
            SUBJECT,
            "the clock is not synchronized: backups are dated, and kept, by it",
            "Turn on systemd-timesyncd or chrony.",
            code="clock_not_synchronized",
        )
