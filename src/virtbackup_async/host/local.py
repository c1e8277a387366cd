"""The image host for images on this machine."""

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from anyio import to_thread

from virtbackup_async.errors import ImageError, StorageError
from virtbackup_async.files.durable import remove_durably
from virtbackup_async.files.refusals import look_at, storage_error
from virtbackup_async.host import domain_locks, state_files
from virtbackup_async.host.interface import DomainLock, NewStateFile, Replacement
from virtbackup_async.host.replacement import leftovers, prepare_swap
from virtbackup_async.images import identity
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.chains import image_chain
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream, RateLimit
from virtbackup_async.model.domain import BackingImage, ToldChain
from virtbackup_async.model.lock_holder import LockHolder
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.nbd import UnixAddress
from virtbackup_async.qemu import qemu_img
from virtbackup_async.qemu.qcow2 import Qcow2Head, head_of
from virtbackup_async.qemu.qemu_nbd import serve_image

_AS_THE_HEADERS_SAY = ToldChain()


class LocalHost:
    """See ``interface.ImageHost``. Objects with the same lock directory are equivalent."""

    def __init__(self, lock_directory: Path | None = None) -> None:
        """Name the directory of the locks; None for root's."""
        self._lock_directory = lock_directory or domain_locks.SYSTEM_DIRECTORY

    async def check_exists(self, path: Path) -> None:
        await to_thread.run_sync(_check_exists, path)

    async def list_state(self, directory: Path) -> tuple[Path, ...]:
        return await to_thread.run_sync(state_files.list_files, directory)

    async def is_file(self, path: Path) -> bool:
        return await to_thread.run_sync(_is_file, path)

    async def is_vacant(self, path: Path) -> bool:
        return await to_thread.run_sync(state_files.is_vacant, path)

    async def owner(self, path: Path) -> str | None:
        return await to_thread.run_sync(state_files.owner, path)

    async def has_user(self, name: str) -> bool:
        return await to_thread.run_sync(state_files.user, name) is not None

    async def create_file(self, path: Path, file: NewStateFile) -> None:
        await to_thread.run_sync(state_files.create_file, path, file)

    async def create_directory(self, path: Path, files: Sequence[NewStateFile]) -> None:
        await to_thread.run_sync(state_files.create_directory, path, files)

    async def give_to(self, path: Path, owner: str | None) -> None:
        await to_thread.run_sync(state_files.give_to, path, owner)

    async def lock_domain(self, domain: str, uuid: str, doing: str) -> DomainLock:
        acquire = partial(domain_locks.acquire, self._lock_directory, domain, uuid, doing)
        return await to_thread.run_sync(acquire)

    async def is_domain_locked(self, uuid: str) -> bool:
        return await to_thread.run_sync(domain_locks.is_held, self._lock_directory, uuid)

    async def domain_holder(self, uuid: str) -> LockHolder | None:
        return await to_thread.run_sync(domain_locks.holder, self._lock_directory, uuid)

    async def exists(self, path: Path, *, follow: bool = True) -> bool:
        return await to_thread.run_sync(_exists, path, follow)

    async def real_path(self, path: Path) -> Path:
        return await to_thread.run_sync(_real_path, path)

    async def is_directory(self, path: Path) -> bool:
        return await to_thread.run_sync(os.path.isdir, path)

    async def entries(self, directory: Path) -> tuple[Path, ...]:
        return await to_thread.run_sync(_entries, directory)

    async def check_readable(self, path: Path) -> None:
        await to_thread.run_sync(_check_readable, path)

    async def remove(self, path: Path) -> None:
        await remove_durably(path)

    async def free_bytes(self, directory: Path) -> int:
        return await to_thread.run_sync(_free_bytes, directory)

    async def shares_file_system(self, path: Path, target: Path) -> bool:
        return await to_thread.run_sync(_shares_file_system, path, target)

    async def file_system(self, directory: Path) -> int:
        return await to_thread.run_sync(_file_system, directory)

    async def signature(self, path: Path) -> tuple[int, ...]:
        return await to_thread.run_sync(identity.signature, path)

    async def image_id(self, path: Path) -> str | None:
        return await to_thread.run_sync(identity.image_id, path)

    async def backing_id(self, image: BackingImage, *, with_times: bool) -> str:
        look = partial(identity.backing_id, image, with_times=with_times)
        return await to_thread.run_sync(look)

    async def prepare_replacement(
        self, path: Path, token: str, wrap: Qcow2Options | None = None
    ) -> Replacement:
        return await to_thread.run_sync(prepare_swap, path, token, wrap)

    async def replacement_leftovers(self, image: Path) -> tuple[Path, ...]:
        return tuple(await to_thread.run_sync(leftovers, image))

    async def info(self, image: BackingImage) -> qemu_img.ImageInfo:
        return await qemu_img.image_info(image.path, image.format)

    async def head(self, path: Path) -> Qcow2Head | None:
        return await to_thread.run_sync(head_of, path)

    async def chain(
        self, image: BackingImage, told: ToldChain = _AS_THE_HEADERS_SAY
    ) -> tuple[BackingImage, ...]:
        return await image_chain(image.path, image.format, told)

    async def check_overlay(self, overlay: Path, image: Path) -> None:
        await to_thread.run_sync(qemu_img.check_overlay, overlay, image)

    async def holds_data(self, overlay: Path) -> bool:
        return await qemu_img.holds_data(overlay)

    async def commit(self, overlay: Path, image: BackingImage) -> None:
        await qemu_img.commit(overlay, image)

    async def rebase(self, upper: BackingImage, lower: BackingImage) -> None:
        await qemu_img.rebase(upper, lower)

    async def remove_bitmap(self, image: Path, name: str) -> None:
        await qemu_img.remove_bitmap(image, name)

    def serve(
        self, chain: Sequence[BackingImage], name: str, *, bitmap: str | None = None
    ) -> AbstractAsyncContextManager[UnixAddress]:
        return serve_image(chain, name, bitmap=bitmap)

    def open_image(
        self,
        path: Path,
        buffers: BufferPool,
        *,
        follow: bool = True,
        limits: Sequence[RateLimit] = (),
    ) -> AbstractAsyncContextManager[DiskStream]:
        return open_image_stream(path, buffers, follow=follow, limits=limits)


def _exists(path: Path, follow: bool) -> bool:  # noqa: FBT001 -- run_sync passes no keywords
    # Missing and unreachable differ: an unreachable overlay might hold a guest's last writes.
    return look_at(path, follow=follow) is not None


def _real_path(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # in a loop of links, by the version of Python
        raise StorageError(f"cannot look at {path}: {error}") from error


def _entries(directory: Path) -> tuple[Path, ...]:
    try:
        return tuple(sorted(directory.iterdir()))
    except OSError as error:
        raise storage_error("read", directory, error) from error


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _check_exists(path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        raise ImageError(f"{error.strerror}", path=path) from error


def _check_readable(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise ImageError(f"{error.strerror}", path=path) from error


def _free_bytes(directory: Path) -> int:
    try:
        status = os.statvfs(directory)
    except OSError as error:
        raise storage_error("use", directory, error) from error
    return status.f_bavail * status.f_frsize


def _shares_file_system(path: Path, target: Path) -> bool:
    try:
        return path.stat().st_dev == target.stat().st_dev
    except OSError:
        return False


def _file_system(directory: Path) -> int:
    try:
        return directory.stat().st_dev
    except OSError as error:
        raise storage_error("use", directory, error) from error
