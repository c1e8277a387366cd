"""Each request as a call of ``Storage``: what the server does for one message.

Names are checked here as far as any storage needs it; the storage refuses ``..`` and links itself.
Long answers are sent in parts, read from the storage as they go.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import islice
from typing import Any, Final, NamedTuple

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.amounts import size
from virtbackup_async.repository.storage.interface import Kind, LeaseLook, Storage
from virtbackup_async.repository.storage.served import messages as m
from virtbackup_async.repository.storage.served.frames import PIECE_BYTES
from virtbackup_async.repository.storage.served.opened import (
    Growing,
    Hidden,
    Holding,
    Leased,
    Listing,
    OpenThings,
    Reading,
    Written,
)

_MAX_STEPS: Final = 32


class Answer(NamedTuple):
    """All that answering one request needs.

    Attributes:
        storage: whose verbs are called.
        things: what the client has open.
        send: sends a message that is not the last one of the answer.
        decide: asks the client whether a lease is dead.
        more: the data that was sent before the request.
    """

    storage: Storage
    things: OpenThings
    send: Callable[[m.Message], None]
    decide: Callable[[m.Message, int], bool] | None = None
    more: bytes = b""


def carry_out(request: m.Request, answer: Answer) -> m.Reply:
    """Carry out a request, and return the last message of its answer; errors are the storage's."""
    return _VERBS[type(request)](request, answer)


def _names(request: m.Names, answer: Answer) -> m.Reply:
    kinds = frozenset(kind for kind in Kind if kind.value in request.kinds)
    found = answer.storage.names(_name(request.name, or_target=True), kinds)
    return _send_names(request.id, found, answer)


def _send_names(id_: int, names: Iterable[str], answer: Answer) -> m.Reply:
    rest = iter(names)
    while some := tuple(m.to_wire(name) for name in islice(rest, m.MAX_NAMES)):
        answer.send(m.Part(id_, names=some))
    return m.Done(id_)


def _sizes(request: m.Sizes, answer: Answer) -> m.Reply:
    names = [_name(name) for name in request.names]
    found = answer.storage.sizes(names)
    return m.Done(request.id, sizes=tuple(found.get(name) for name in names))


def _status(request: m.StatusOf, answer: Answer) -> m.Reply:
    found = answer.storage.status(_name(request.name))
    version = m.text(repr(found.version))
    return m.Opened(request.id, 0, found.size_bytes, version, found.is_file, found.modified_s)


def _exists(request: m.Exists, answer: Answer) -> m.Reply:
    return m.Done(request.id, answer.storage.exists(_name(request.name)))


def _open(request: m.OpenFile, answer: Answer) -> m.Reply:
    name = _name(request.name)
    # Before it is opened: a file that is exchanged in between counts as changed later.
    version = m.text(repr(answer.storage.status(name).version))
    handle, thing = answer.things.add(lambda: Reading(answer.storage.open(name)))
    return m.Opened(request.id, handle, thing.file.size_bytes, version)


def _open_directory(request: m.OpenDirectory, answer: Answer) -> m.Reply:
    name = _name(request.name, or_target=True)
    handle, _ = answer.things.add(lambda: Listing(answer.storage.open_directory(name)))
    return m.Opened(request.id, handle)


def _hold(request: m.Hold, answer: Answer) -> m.Reply:
    held = answer.storage.hold(_name(request.name, or_target=True))
    if held is None:
        return m.Done(request.id)
    try:
        handle, _ = answer.things.add(lambda: Holding(held))
    except StorageError:
        held.close()
        raise
    return m.Opened(request.id, handle)


def _read_whole(request: m.ReadWhole, answer: Answer) -> m.Reply:
    _check_whole(request.max_bytes)
    name = _name(request.name)
    try:
        with closing(answer.storage.open(name)) as file:
            offset = 0
            while offset < request.max_bytes:
                data = file.read_up_to(min(PIECE_BYTES, request.max_bytes - offset), offset)
                if not data:
                    break
                answer.send(m.Part(request.id, data))
                offset += len(data)
    except FileNotFoundError:
        return m.Done(request.id, value=False)
    except OSError as error:
        raise storage_error("read", answer.storage.where(name), error) from error
    return m.Done(request.id, value=True)


def _check_whole(max_bytes: int) -> None:
    if max_bytes > m.MAX_WHOLE_BYTES:
        raise StorageError(f"files of more than {size(m.MAX_WHOLE_BYTES)} are read in ranges")


def _make_directory(request: m.MakeDirectory, answer: Answer) -> m.Reply:
    answer.storage.make_directory(_name(request.name))
    return m.Done(request.id)


def _sync_names(request: m.SyncNames, answer: Answer) -> m.Reply:
    answer.storage.sync_names(_name(request.name, or_target=True))
    return m.Done(request.id)


def _replace(request: m.Replace, answer: Answer) -> m.Reply:
    data = answer.more + request.data
    answer.storage.replace(_name(request.name), data, keep_owner=request.keep_owner)
    return m.Done(request.id)


def _rename(request: m.Rename, answer: Answer) -> m.Reply:
    answer.storage.rename(_name(request.name), _step(request.new))
    return m.Done(request.id)


def _put_new(request: m.PutNew, answer: Answer) -> m.Reply:
    answer.storage.put_new(_name(request.name), answer.more + request.data)
    return m.Done(request.id)


def _overwrite(request: m.Overwrite, answer: Answer) -> m.Reply:
    answer.storage.overwrite(_name(request.name), answer.more + request.data)
    return m.Done(request.id)


def _create(request: m.Create, answer: Answer) -> m.Reply:
    name = _name(request.name)
    handle, _ = answer.things.add(lambda: Growing(answer.storage.create(name)))
    return m.Opened(request.id, handle)


def _create_hidden(request: m.CreateHidden, answer: Answer) -> m.Reply:
    name = _name(request.name)
    handle, _ = answer.things.add(lambda: Hidden(answer.storage.create_hidden(name)))
    return m.Opened(request.id, handle)


def _remove(request: m.Remove, answer: Answer) -> m.Reply:
    answer.storage.remove(_name(request.name))
    return m.Done(request.id)


def _take_lease(request: m.TakeLease, answer: Answer) -> m.Reply:
    name = _name(request.name)
    directories = [_name(each) for each in request.directories]
    handle, _ = answer.things.add(
        lambda: Leased(answer.storage.take_lease(name, request.content, directories))
    )
    return m.Opened(request.id, handle)


def _look_at_lease(request: m.LookAtLease, answer: Answer) -> m.Reply:
    def is_dead(look: LeaseLook) -> bool:
        if answer.decide is None:
            return False
        seen = m.Look(request.id, look.content, look.modified_s, look.is_locked, look.expiry_s)
        return answer.decide(seen, request.id)

    answer.storage.remove_lease_if(_name(request.name), is_dead)
    return m.Done(request.id)


def _clock(request: m.Clock, answer: Answer) -> m.Reply:
    return m.Done(request.id, answer.storage.clock(_name(request.name, or_target=True)))


def _remove_temporary(request: m.RemoveTemporary, answer: Answer) -> m.Reply:
    names = [_name(name, or_target=True) for name in request.names]
    answer.storage.remove_temporary_files(names, request.before_s)
    return m.Done(request.id)


def _free_bytes(request: m.FreeBytes, answer: Answer) -> m.Reply:
    return m.Done(request.id, answer.storage.free_bytes())


def _keep_reserve(request: m.KeepReserve, answer: Answer) -> m.Reply:
    answer.storage.keep_reserve()
    return m.Done(request.id)


def _release_reserve(request: m.ReleaseReserve, answer: Answer) -> m.Reply:
    return m.Done(request.id, answer.storage.release_reserve())


def _read_at(request: m.ReadAt, answer: Answer) -> m.Reply:
    file = answer.things.get(request.handle, Reading).file
    read = {"whole": file.read, "once": file.read_once}.get(request.how, file.read_up_to)
    return m.Part(request.id, bytes(read(request.length, request.offset)), is_last=True)


def _directory_names(request: m.DirectoryNames, answer: Answer) -> m.Reply:
    names = answer.things.get(request.handle, Listing).directory.names()
    return _send_names(request.id, names, answer)


def _directory_read(request: m.DirectoryRead, answer: Answer) -> m.Reply:
    _check_whole(request.max_bytes)
    directory = answer.things.get(request.handle, Listing).directory
    data = directory.read(_step(request.name), request.max_bytes)
    for begin in range(0, len(data), PIECE_BYTES):
        answer.send(m.Part(request.id, data[begin : begin + PIECE_BYTES]))
    return m.Done(request.id)


def _append(request: m.Append, answer: Answer) -> m.Reply:
    answer.things.get(request.handle, Written).append(request.data)
    return m.Done(request.id)


def _finish(request: m.Finish, answer: Answer) -> m.Reply:
    file = answer.things.get(request.handle, Written)
    file.finish()
    if isinstance(file, Growing):
        answer.things.close(request.handle)
    return m.Done(request.id)


def _publish(request: m.Publish, answer: Answer) -> m.Reply:
    file = answer.things.get(request.handle, Hidden).file
    file.publish(lambda: answer.send(m.Named(request.id)))
    answer.things.close(request.handle)
    return m.Done(request.id)


def _publish_exclusively(request: m.PublishExclusively, answer: Answer) -> m.Reply:
    answer.things.get(request.handle, Hidden).file.publish_exclusively()
    answer.things.close(request.handle)
    return m.Done(request.id)


def _discard(request: m.Discard, answer: Answer) -> m.Reply:
    answer.things.get(request.handle, Written).file.discard()
    return m.Done(request.id)


def _refresh(request: m.Refresh, answer: Answer) -> m.Reply:
    answer.things.get(request.handle, Leased).file.refresh()
    return m.Done(request.id)


def _is_held(request: m.IsHeld, answer: Answer) -> m.Reply:
    return m.Done(request.id, answer.things.get(request.handle, Leased).file.is_held())


def _close(request: m.Close, answer: Answer) -> m.Reply:
    answer.things.close(request.handle)
    return m.Done(request.id)


_VERBS: Final[dict[type[m.Request], Callable[[Any, Answer], m.Reply]]] = {
    m.Names: _names,
    m.Sizes: _sizes,
    m.StatusOf: _status,
    m.Exists: _exists,
    m.OpenFile: _open,
    m.OpenDirectory: _open_directory,
    m.Hold: _hold,
    m.ReadWhole: _read_whole,
    m.MakeDirectory: _make_directory,
    m.SyncNames: _sync_names,
    m.Replace: _replace,
    m.Rename: _rename,
    m.PutNew: _put_new,
    m.Overwrite: _overwrite,
    m.Create: _create,
    m.CreateHidden: _create_hidden,
    m.Remove: _remove,
    m.TakeLease: _take_lease,
    m.LookAtLease: _look_at_lease,
    m.Clock: _clock,
    m.RemoveTemporary: _remove_temporary,
    m.FreeBytes: _free_bytes,
    m.KeepReserve: _keep_reserve,
    m.ReleaseReserve: _release_reserve,
    m.ReadAt: _read_at,
    m.DirectoryNames: _directory_names,
    m.DirectoryRead: _directory_read,
    m.Append: _append,
    m.Finish: _finish,
    m.Publish: _publish,
    m.PublishExclusively: _publish_exclusively,
    m.Discard: _discard,
    m.Refresh: _refresh,
    m.IsHeld: _is_held,
    m.Close: _close,
}


def _name(sent: bytes, *, or_target: bool = False) -> str:
    """Return the name of a file in the target.

    Raises:
        StorageError: it is no name in a target, or the target's own where that is not meant.
    """
    name = m.from_wire(sent)
    if not name and or_target:
        return name
    steps = name.split("/")
    if len(steps) > _MAX_STEPS or any(not _is_plain(step) for step in steps):
        raise StorageError(f"not the name of a file in a target: {name!r:.300}")
    return name


def _step(sent: bytes) -> str:
    step = m.from_wire(sent)
    if not _is_plain(step):
        raise StorageError(f"not a plain file name: {step!r:.300}")
    return step


def _is_plain(step: str) -> bool:
    return step not in {"", ".", ".."} and "/" not in step and "\0" not in step
