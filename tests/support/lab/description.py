"""libvirt's description of a domain that boots the lab's guest. Called by ``domains.py``."""

import uuid as uuids
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from lab.disks import DiskSpec, disk_xml
from lab.guest import Guest

_AGENT = "<channel type='unix'>{}<target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
_TPM = "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"
_FIRMWARE = (Path("/usr/share/seabios/bios-256k.bin"), Path("/usr/share/qemu/bios-256k.bin"))
_SCSI = "<controller type='scsi' model='virtio-scsi'/>"


def domain_xml(
    name: str,
    disks: Sequence[tuple[DiskSpec, Path]],
    guest: Guest,
    console: Path,
    *,
    agent: bool = True,
    agent_socket: Path | None = None,
    writer: str | None = None,
    uuid: str | None = None,
    bus: str = "virtio",
    hypervisor: str = "qemu",
    memory_mib: int = 128,
    nvram: Path | None = None,
    varstore: Path | None = None,
    tpm: bool = False,
    devices: str = "",
    memory: str = "",
) -> str:
    """libvirt's description of a domain that boots the lab's guest.

    Args:
        name: the domain's name.
        disks: each with its image.
        guest: kernel and initramfs.
        console: the file that the serial console goes to.
        agent: whether there is a guest agent, channel and program.
        agent_socket: where somebody else listens, and answers libvirt in place of the guest's
            agent; None lets QEMU listen.
        writer: the dev of an ext4 disk on which the guest keeps appending to ``writer.log``.
        uuid: the domain's identity; a new one by default.
        bus: of the disks, ``virtio`` or ``scsi`` (the devs are then ``sda`` …).
        hypervisor: ``qemu`` (TCG) or ``kvm``.
        memory_mib: the guest needs 64.
        nvram: flash memory of its own, a file whose size is a power of two; the firmware is flash
            too then. ``domains.py`` makes one where there is none.
        varstore: UEFI variables in a file of that path, which QEMU makes from a template beside it;
            the firmware is a ROM then. libvirt before 12.1 knows no such thing, and forgets it.
        tpm: an emulated TPM.
        devices: elements of libvirt's, put beside the others.
        memory: elements that stand before ``<vcpu>``, such as ``<maxMemory>``.
    """
    elements = [disk_xml(spec, image, bus) for spec, image in disks]
    elements += [devices]
    elements += [_SCSI] * (bus == "scsi") + [_agent(agent_socket)] * agent + [_TPM] * tpm
    return f"""\
<domain type='{hypervisor}'>
  <name>{escape(name)}</name>
  <uuid>{uuid or uuids.uuid4()}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>{memory}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>{_flash(nvram)}{_varstore(varstore)}
    <kernel>{escape(str(guest.kernel))}</kernel>
    <initrd>{escape(str(guest.initramfs))}</initrd>
    <cmdline>{escape(_cmdline([spec for spec, _ in disks], writer, agent=agent))}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    {"".join(elements)}
    <serial type='file'><source path='{escape(str(console))}'/></serial>
    <controller type='usb' model='none'/>
    <video><model type='none'/></video>
    <memballoon model='none'/>
  </devices>
</domain>"""


def _agent(socket: Path | None) -> str:
    source = "" if socket is None else f"<source mode='connect' path='{escape(str(socket))}'/>"
    return _AGENT.format(source)


def _flash(nvram: Path | None) -> str:
    if nvram is None:
        return ""
    # The guest's usual firmware, which knows nothing of the second chip: it boots as ever.
    loader = f"<loader readonly='yes' type='pflash'>{_firmware()}</loader>"
    return f"{loader}<nvram>{escape(str(nvram))}</nvram>"


def _varstore(path: Path | None) -> str:
    if path is None:
        return ""
    template = path.with_name("template.json")
    return (
        f"<loader type='rom'>{_firmware()}</loader>"
        f"<varstore template='{escape(str(template))}' path='{escape(str(path))}'/>"
    )


def _firmware() -> Path:
    return next(path for path in _FIRMWARE if path.exists())


def _cmdline(disks: Sequence[DiskSpec], writer: str | None, *, agent: bool) -> str:
    mounted = [disk.dev for disk in disks if disk.fs and disk.kind == "disk"]
    words = ["console=ttyS0", "quiet", "panic=-1", "no_timer_check", "tsc=reliable"]
    if mounted:
        words.append("lab.mount=" + ",".join(f"{dev}:/mnt/{dev}" for dev in mounted))
    if writer:
        words.append(f"lab.writer=/mnt/{writer}")
    return " ".join(words if agent else [*words, "lab.agent=off"])
