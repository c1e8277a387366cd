"""Hosts as ``init`` might find them."""

from pathlib import Path

from virtbackup_async.engine.setup.site import Images, Site
from virtbackup_async.events import AgentState, DomainFound, FileSystemFound
from virtbackup_async.files.mounts import Mount, Place

GIB = 1024**3
ROOT = Mount(Path("/"), "ext4", "/dev/sda1", "8:1")
OTHER_PARTITION = Mount(Path("/data"), "xfs", "/dev/sda2", "8:2")
BACKUP = Mount(Path("/mnt/backup"), "ext4", "/dev/sdb1", "8:17")
ARCHIVE = Mount(Path("/mnt/old"), "ext4", "/dev/sdc1", "8:33", is_read_only=True)
MEMORY = Mount(Path("/dev/shm"), "tmpfs", "tmpfs", "0:30")
NAS = Mount(Path("/mnt/nas"), "nfs4", "nas:/export", "0:50")
PLACES = {
    ROOT: Place("8:1", frozenset({"sda"})),
    OTHER_PARTITION: Place("8:2", frozenset({"sda"})),
    BACKUP: Place("8:17", frozenset({"sdb"})),
    ARCHIVE: Place("8:33", frozenset({"sdc"})),
    MEMORY: Place("0:30"),
    NAS: Place("0:50"),
}


def domain(name, agent=AgentState.ANSWERS, *, disks=("vda",), used_bytes=10 * GIB, error=None):
    running = agent is not AgentState.UNKNOWN
    return DomainFound(name, running, disks, used_bytes, agent, error)


def site(*domains, mounts=(ROOT, OTHER_PARTITION, BACKUP, ARCHIVE, MEMORY, NAS), free_bytes=None):
    """A host whose images are all on the root file system."""
    names = [found.domain for found in domains]
    images = {
        name: Images((Path(f"/var/lib/libvirt/images/{name}.qcow2"),), (PLACES[ROOT],))
        for name in names
    }
    made = Site("qemu:///system", domains, images=images, mounts=tuple(mounts))
    file_systems = tuple(
        FileSystemFound(
            str(mount.point),
            mount.type,
            mount.source,
            1000 * GIB,
            (free_bytes or {}).get(mount, 100 * GIB),
            made.on_file_system_of(PLACES[mount]),
            made.on_disk_of(PLACES[mount]),
            "read-only" if mount.is_read_only else None,
        )
        for mount in mounts
        if mount.is_storage
    )
    return Site("qemu:///system", domains, file_systems, images, tuple(mounts))
