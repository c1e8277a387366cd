"""Domains of the lab: what they are made of, and what a test does to them, all through ``virsh``.

Synchronous: an asynchronous test calls it with ``anyio.to_thread.run_sync``.
"""

import base64
import contextlib
import json
import os
import time
import uuid as uuids
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lxml import etree

from lab.description import domain_xml
from lab.disks import DiskSpec, make_image
from lab.guest import build
from lab.libvirt_root import LibvirtRoot
from lab.process import LabError

NVRAM_BYTES = 64 << 10


class LabDomain:
    """A defined domain of a private libvirt."""

    def __init__(self, root: LibvirtRoot, name: str, console: Path, *, agent: bool) -> None:
        self.root = root
        self.name = name
        self.console = console
        self._has_agent = agent
        # libvirt numbers devices as they stand in the description: the same at each start.
        self._aliases: dict[str, str] = {}

    def start(self) -> None:
        """Start it, without waiting for the guest."""
        self.console.unlink(missing_ok=True)
        self.root.start_domain(self.name, agent=self._has_agent)

    def start_paused(self) -> None:
        """Start QEMU and what it needs, without letting the guest, or its firmware, run."""
        self.root.virsh("start", self.name, "--paused")

    def wait_booted(self, timeout_s: float = 90) -> None:
        """Wait until the guest has mounted its disks and its agent, if it has one, answers."""
        self._wait(lambda: "lab-guest: booted" in self.console_text(), "boot", timeout_s)
        if self._has_agent:
            self._wait(self._agent_answers, "answer by its agent", timeout_s)

    def wait_shut_off(self, timeout_s: float = 60) -> None:
        """Wait until the domain is not running any more."""
        self._wait(lambda: self.state() == "shut off", "shut off", timeout_s)

    def wait_paused(self, timeout_s: float = 60) -> None:
        """Wait until the domain is paused, as by an I/O error."""
        self._wait(lambda: self.state() == "paused", "be paused", timeout_s)

    def state(self) -> str:
        """``running``, ``paused``, ``shut off`` …"""
        return self.root.virsh("domstate", self.name).strip()

    def console_text(self) -> str:
        """What the guest has printed on its serial console since the last start."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def agent(self, command: str, **arguments: Any) -> Any:
        """One command of the guest agent, and its answer."""
        request = json.dumps({"execute": command, "arguments": arguments})
        answer = self.root.virsh("qemu-agent-command", self.name, request)
        return json.loads(answer)["return"]

    def guest_exec(self, shell: str, timeout_s: float = 60) -> str:
        """Run a shell command in the guest and return its standard output.

        Raises:
            LabError: it exited with something else than 0.
        """
        arguments = {"path": "/bin/sh", "arg": ["-ec", shell], "capture-output": True}
        pid = self.agent("guest-exec", **arguments)["pid"]
        status: dict[str, Any] = {}

        def is_done() -> bool:
            status.update(self.agent("guest-exec-status", pid=pid))
            return bool(status["exited"])

        self._wait(is_done, f"finish {shell!r}", timeout_s)
        out, err = (_decoded(status, key) for key in ("out-data", "err-data"))
        if status.get("exitcode"):
            raise LabError(f"{self.name}: {shell!r} in the guest: {status['exitcode']} {err}")
        return out

    def qemu_io(self, dev: str, command: str) -> None:
        """Write to a running domain's disk as its guest would: ``write -P 9 5M 128k``.

        Deterministic, and asks nothing of the guest. ``discard 5M 1M``, ``write -z 5M 1M`` and
        ``flush`` too; without a flush, or ``write -f``, a qcow2's new tables are only in QEMU's
        memory. What the
        command prints goes to QEMU's own log, buffered: a command that fails is not noticed.

        Raises:
            LabError: no such disk, or the domain does not run.
        """
        alias = self._alias(dev)
        backend = "/virtio-backend" if alias.startswith("virtio") else ""
        line = f'qemu-io -d /machine/peripheral/{alias}{backend} "{command}"'
        said = self.root.virsh("qemu-monitor-command", "--hmp", self.name, line).strip()
        if said:
            raise LabError(f"{self.name}: qemu-io {command} on {dev}: {said}")

    def exports(self) -> list[str]:
        """The names under which QEMU serves disks of the running domain."""
        query = '{"execute": "query-block-exports"}'
        answer = json.loads(self.root.virsh("qemu-monitor-command", self.name, query))
        return [export["id"] for export in answer["return"]]

    def guest_shutdown(self, mode: str = "agent") -> None:
        """Ask the guest to power off, by ``agent`` or ``acpi``, and wait until it has."""
        try:
            self.root.virsh("shutdown", self.name, "--mode", mode)
        except LabError as error:
            # The guest may be off before its agent has answered.
            if "End of file from agent socket" not in str(error):
                raise
        self.wait_shut_off()

    def destroy(self) -> None:
        """Pull the plug, if it runs."""
        try:
            self.root.virsh("destroy", self.name)
        except LabError:
            if self.state() != "shut off":
                raise

    def abort_job(self) -> None:
        """End its backup job, and wait until it has ended: newer libvirt does not."""
        self.root.virsh("domjobabort", self.name)
        self._wait(lambda: "None" in self.root.virsh("domjobinfo", self.name), "end its job", 30)

    def undefine(self) -> None:
        """Destroy it and forget it, its flash memory and its TPM; its images stay."""
        self.destroy()
        metadata = ("--snapshots-metadata", "--checkpoints-metadata")
        self.root.virsh("undefine", self.name, "--nvram", *metadata)

    def xml(self, *, inactive: bool = False) -> etree._Element:
        """The domain's description: of the running domain, or of its next start."""
        flags = ["--inactive"] if inactive else []
        return etree.fromstring(self.root.virsh("dumpxml", self.name, *flags))

    def image(self, dev: str, *, inactive: bool = False) -> Path:
        """The image that the disk writes to now, or will at the next start."""
        return self.images(inactive=inactive)[dev]

    def images(self, *, inactive: bool = False) -> dict[str, Path]:
        """All disks' images, by dev; of a drive without a medium there is none."""
        return _images(self.xml(inactive=inactive))

    def files(self, *, inactive: bool = False) -> dict[str, Path]:
        """The images, and as ``nvram`` the flash memory, if it has one."""
        xml = self.xml(inactive=inactive)
        nvram = xml.findtext("os/nvram")
        return _images(xml) | ({"nvram": Path(nvram)} if nvram else {})

    def _alias(self, dev: str) -> str:
        if dev not in self._aliases:
            disk = self.xml().find(f"devices/disk/target[@dev='{dev}']/..")
            if disk is None:
                raise LabError(f"{self.name} has no disk {dev}")
            alias = disk.find("alias")
            if alias is None:
                raise LabError(f"{self.name} does not run: disk {dev} has no alias")
            self._aliases[dev] = alias.get("name", "")
        return self._aliases[dev]

    def _agent_answers(self) -> bool:
        with contextlib.suppress(LabError):
            self.agent("guest-ping")
            return True
        return False

    def _wait(self, is_so: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                tail = self.console_text()[-1500:]
                raise LabError(f"{self.name} did not {what} within {timeout_s:g} s: {tail}")
            time.sleep(0.05)


def define(
    root: LibvirtRoot,
    name: str,
    disks: Sequence[DiskSpec],
    *,
    agent: bool = True,
    **options: Any,
) -> LabDomain:
    """Make the disks' images below ``root.images`` and define the domain.

    ``options`` are those of ``domain_xml``; of ``nvram`` a file is made, at that path or with the
    images. ``name`` may be hostile: files are named by the uuid's start, and the domain's name
    reaches libvirt only inside its description.
    """
    uuid = str(options.pop("uuid", None) or uuids.uuid4())
    label = uuid[:8]
    with_images = [(disk, make_image(disk, root.images, label)) for disk in disks]
    if nvram := options.pop("nvram", None):
        at = nvram if isinstance(nvram, Path) else root.images / f"{label}-nvram.fd"
        options["nvram"] = make_nvram(at)
    console = root.path / "console" / f"{label}.log"
    xml = domain_xml(name, with_images, build(), console, agent=agent, uuid=uuid, **options)
    description = root.path / "console" / f"{label}.xml"
    description.write_text(xml)
    root.virsh("define", description)
    return LabDomain(root, name, console, agent=agent)


def make_nvram(path: Path) -> Path:
    """Fill flash memory, as a firmware of its own would."""
    # A daemon that nobody has connected to yet has not made its own directory for it.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(NVRAM_BYTES))
    return path


@contextlib.contextmanager
def running(
    root: LibvirtRoot, name: str, disks: Sequence[DiskSpec], **options: Any
) -> Iterator[LabDomain]:
    """A booted domain, undefined on leaving, also when the test failed."""
    domain = define(root, name, disks, **options)
    try:
        domain.start()
        domain.wait_booted()
        yield domain
    finally:
        domain.undefine()


def _images(xml: etree._Element) -> dict[str, Path]:
    found = {}
    for disk in xml.findall("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None:
            path = source.get("file") or source.get("dev") or ""
            found[target.get("dev", "")] = Path(path)
    return found


def _decoded(status: dict[str, Any], key: str) -> str:
    return base64.b64decode(status.get(key, "")).decode(errors="replace")
