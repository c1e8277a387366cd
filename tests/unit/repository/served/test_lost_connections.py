"""served/link.py, storage.py, files.py: the connection is lost at each moment."""

import errno
import os
from contextlib import closing, suppress

import pytest

from fakes.memory_storage import MemoryStorage
from store_servers import LOCATION, Servers, ThreadServer, served_by
from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.served import messages as m
from virtbackup_async.repository.storage.served.channel import Channel
from virtbackup_async.repository.storage.served.connection import LostError
from virtbackup_async.repository.storage.served.link import Link
from virtbackup_async.repository.storage.served.storage import ServedStorage

ANY = frozenset(Kind)


class DyingServer(ThreadServer):
    """A server that is gone instead of sending an answer.

    Attributes:
        answers: how many answers it sends before that, its hello included; None: all.
    """

    def __init__(self, storage, answers=None):
        self.answers = answers
        super().__init__(storage)

    def make_channel(self, *ends):
        server = self

        class Dying(Channel):
            def send(self, message):
                if server.answers is not None:
                    server.answers -= 1
                    if server.answers < 0:
                        self.close_output(10)
                        raise BrokenPipeError
                super().send(message)

        return Dying(*ends)


@pytest.fixture
def inner():
    storage = MemoryStorage()
    storage.make_directory("d")
    storage.put_new("d/old", b"old")
    return storage


def dying(inner, *answers):
    """A storage whose servers die after so many answers, one after the other; then one stays."""
    left = iter(answers)
    servers = Servers(lambda: DyingServer(inner, next(left, None)))
    return served_by(servers), servers


SAFE = {
    "names": lambda s: s.names("d", ANY) == ["old"],
    "sizes": lambda s: s.sizes(["d/old", "d/none"]) == {"d/old": 3},
    "status": lambda s: s.status("d/old").size_bytes == 3,
    "exists": lambda s: s.exists("d/old"),
    "read": lambda s: s.read("d/old", 10) == b"old",
    "open": lambda s: s.open("d/old").read(3, 0) == b"old",
    "open_directory": lambda s: s.open_directory("d").names() == {"old"},
    "read_each": lambda s: (
        dict(s.open_directory("d").read_each(["old"] * 40, 10)) == {"old": b"old"}
    ),
    "make_directory": lambda s: s.make_directory("d/new") is None,
    "sync_names": lambda s: s.sync_names("d") is None,
    "put_new": lambda s: s.put_new("d/new", b"new") is None and s.read("d/new", 9) == b"new",
    "replace": lambda s: s.replace("d/old", b"new") is None and s.read("d/old", 9) == b"new",
    "overwrite": lambda s: s.overwrite("d/old", b"O") is None and s.read("d/old", 9) == b"Old",
    "remove": lambda s: s.remove("d/old") is None and not s.exists("d/old"),
    "clock": lambda s: s.clock("d") > 0,
    "free_bytes": lambda s: s.free_bytes() > 0,
    "hold": lambda s: s.hold("d").close() is None,
    "remove_temporary_files": lambda s: s.remove_temporary_files(["d"], 0) is None,
    "remove_lease_if": lambda s: s.remove_lease_if("d/old", lambda look: not look.content) is None,
}  # fmt: skip


@pytest.mark.parametrize("answers", range(6))
@pytest.mark.parametrize("verb", SAFE)
def test_what_is_safe_is_done_on_another_connection(inner, verb, answers):
    storage, servers = dying(inner, 1 + answers)
    with closing(storage.link):
        assert SAFE[verb](storage)
        assert len(servers.servers) <= 2
        assert set(inner.files) <= {"d/old", "d/new"}


def test_a_name_that_somebody_else_took_is_not_ones_own(inner):
    storage, _ = dying(inner, 1)
    with closing(storage.link), pytest.raises(FileExistsError):
        storage.put_new("d/old", b"new")
    assert inner.read("d/old", 9) == b"old"


def write(storage, kind):
    file = storage.create("d/new") if kind == "growing" else storage.create_hidden("d/new")
    named = []
    try:
        for part in (b"a" * 10, b"b" * 10):
            file.append(part)
        file.finish()
        if kind == "published":
            file.publish(lambda: named.append(True))
        elif kind == "exclusive":
            file.publish_exclusively()
    except BaseException:
        if not named:
            file.discard()
        raise
    return named


@pytest.mark.parametrize("answers", range(10))
@pytest.mark.parametrize("kind", ["growing", "published", "exclusive"])
def test_a_file_is_there_whole_or_fails_in_one_line(inner, kind, answers):
    storage, servers = dying(inner, 1 + answers)
    failed = None
    with closing(storage.link):
        try:
            write(storage, kind)
        except StorageError as error:
            failed = error
    servers.wait()
    if "d/new" in inner.files:
        assert bytes(inner.files["d/new"].data) == b"a" * 10 + b"b" * 10
    else:
        assert failed is not None
    if failed is not None:
        assert "d/new" in failed.message
        assert "\n" not in failed.message


def test_who_cannot_know_whether_a_file_is_published_is_told_that_it_may_be(inner):
    """The server dies after it gave the file its name, before anybody hears of it."""
    storage, servers = dying(inner)
    with closing(storage.link):
        file = storage.create_hidden("d/new")
        file.append(b"x")
        file.finish()
        servers.servers[-1].answers = 0
        named = []
        with pytest.raises(StorageError):
            file.publish(lambda: named.append(True))
        assert named == [True]
    assert inner.read("d/new", 9) == b"x"


UNSAFE = {
    "rename": lambda s: s.rename("d/old", "new"),
    "take_lease": lambda s: s.take_lease("d/old", b"who", ()),
}


@pytest.mark.parametrize("verb", UNSAFE)
def test_what_is_not_safe_fails_in_one_line(inner, verb):
    storage, servers = dying(inner)
    with closing(storage.link):
        assert storage.exists("d")
        servers.servers[-1].answers = 0
        with pytest.raises(StorageError, match=f"{LOCATION}/d/old"):
            UNSAFE[verb](storage)
        assert storage.names("d", ANY) in (["old"], ["new"])


def test_a_lease_is_lost_with_the_connection(inner):
    storage, servers = dying(inner)
    with closing(storage.link):
        lease = storage.take_lease("d/lease", b"who", ("d",))
        assert lease.is_held()
        servers.servers[-1].end()
        with pytest.raises(StorageError, match="lease"):
            lease.is_held()
        lease.refresh()
        lease.remove()
        assert storage.names("d", ANY) == ["old"]


def test_nothing_is_changed_under_a_hold_that_is_lost(inner):
    storage, servers = dying(inner)
    with closing(storage.link):
        held = storage.hold("d")
        storage.replace("d/old", b"under the hold")
        servers.servers[-1].end()
        assert storage.read("d/old", 99) == b"under the hold"
        for change in (
            lambda: storage.replace("d/old", b"x"), lambda: storage.remove("d/old"),
            lambda: storage.put_new("d/new", b"x"), lambda: storage.create("d/new"),
            lambda: storage.rename("d/old", "new"), lambda: storage.create_hidden("d/new"),
        ):  # fmt: skip
            with pytest.raises(StorageError, match=r"while .*/d was held"):
                change()
        held.close()
        storage.replace("d/old", b"after")
    assert inner.read("d/old", 99) == b"after"


def test_an_open_file_is_read_on_if_it_is_still_the_same(inner):
    storage, servers = dying(inner)
    with closing(storage.link):
        file = storage.open("d/old")
        servers.servers[-1].end()
        assert file.read(3, 0) == b"old"
        servers.servers[-1].end()
        inner.replace("d/old", b"new")
        with pytest.raises(OSError, match="replaced") as error:
            file.read(3, 0)
        assert error.value.errno == errno.ESTALE
        inner.remove("d/old")
        with pytest.raises(FileNotFoundError):
            file.read(3, 0)


@pytest.mark.parametrize("finished", [True, False])
def test_a_growing_file_is_discarded_on_whichever_connection(inner, finished):
    storage, servers = dying(inner)
    with closing(storage.link):
        file = storage.create("d/new")
        file.append(b"x")
        if finished:
            file.finish()
        servers.servers[-1].end()
        file.discard()
        file.discard()
        assert not storage.exists("d/new")


def test_many_requests_at_once_share_one_loss(inner):
    storage, servers = dying(inner, 3, 3, 3)
    with closing(storage.link):
        with suppress(StorageError):
            storage.sizes(f"d/{number}" for number in range(50_000))
        assert storage.sizes(f"d/{number}" for number in range(50_000)) == {}
        assert len(servers.servers) == 4


class Refusals:
    """A way to a server that is refused so often."""

    def __init__(self, connect, *errors):
        self._connect = connect
        self.errors = list(errors)

    def __call__(self):
        if self.errors:
            raise self.errors.pop(0)
        return self._connect()


def link_of(inner, *errors, pauses=(0, 1, 2)):
    waited = []
    servers = Servers(lambda: ThreadServer(inner))
    connect = Refusals(servers, *errors)
    return Link(connect, str(LOCATION), pauses, waited.append), connect, servers, waited


def test_a_server_that_was_never_there_is_not_waited_for(inner):
    lost = LostError("ssh: no route", hint="Look at the network.")
    link, _, _, waited = link_of(inner, lost)
    with pytest.raises(StorageError) as error:
        ServedStorage(LOCATION, link).exists("d")
    assert error.value.message == f"cannot reach {LOCATION}: ssh: no route"
    assert error.value.hint == "Look at the network."
    assert waited == []


def test_a_server_that_was_there_is_waited_for(inner):
    link, connect, servers, waited = link_of(inner)
    storage = ServedStorage(LOCATION, link)
    with closing(link):
        assert storage.exists("d")
        connect.errors = [LostError("gone"), LostError("gone")]
        servers.servers[-1].end()
        assert storage.exists("d")
    assert waited == [1, 2]


def test_a_server_that_stays_away_is_given_up_and_tried_anew_later(inner):
    link, connect, servers, waited = link_of(inner)
    storage = ServedStorage(LOCATION, link)
    with closing(link):
        assert storage.exists("d")
        connect.errors = [LostError("gone") for _ in range(3)]
        servers.servers[-1].end()
        with pytest.raises(StorageError, match="gone"):
            storage.exists("d")
        assert waited == [1, 2]
        assert storage.exists("d")


def test_a_refusal_that_lasts_is_not_tried_again(inner):
    link, connect, servers, waited = link_of(inner)
    storage = ServedStorage(LOCATION, link)
    with closing(link):
        assert storage.exists("d")
        connect.errors = [LostError("Permission denied", is_final=True)]
        servers.servers[-1].end()
        with pytest.raises(StorageError, match="Permission denied"):
            storage.exists("d")
    assert waited == []


LIES = [
    m.Done(1 << 40),
    m.Part(1, names=(b"../evil",), is_last=False),
    m.Part(1, names=(b"",), is_last=False),
    m.Named(1),
    m.Opened(1),
    m.Hello(1),
    m.Exists(1, b"d"),
]


@pytest.mark.parametrize("lie", LIES, ids=repr)
def test_a_server_that_lies_is_not_believed(inner, lie):
    class Lying(ThreadServer):
        def make_channel(self, *ends):
            class Lies(Channel):
                def send(self, message):
                    super().send(message if isinstance(message, m.Hello) else lie)

            return Lies(*ends)

    storage = served_by(Servers(lambda: Lying(inner)))
    with closing(storage.link), pytest.raises(StorageError) as error:
        storage.names("d", ANY)
    assert "\n" not in error.value.message


def test_who_is_no_store_server_is_found_out():
    class Banner(ThreadServer):
        def make_channel(self, *ends):
            class Speaks(Channel):
                def send(self, _message):
                    os.write(self._output, b"Welcome to nas!\n")
                    raise BrokenPipeError

            return Speaks(*ends)

    storage = served_by(Servers(lambda: Banner(MemoryStorage())))
    with closing(storage.link), pytest.raises(StorageError, match="no store server"):
        storage.exists("d")
