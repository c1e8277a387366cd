"""served/session.py: a client may send what it likes, and harms nobody but itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.memory_storage import MemoryStorage
from store_clients import HELLO, REQUESTS, client_of, numbered
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.served import messages as m
from virtbackup_async.repository.storage.served.frames import PIECE_BYTES
from virtbackup_async.repository.storage.served.session import MAX_OPEN


@pytest.fixture
def target(tmp_path):
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (target / "link").symlink_to(tmp_path / "outside")
    (target / "d" / "file-link").symlink_to(tmp_path / "outside" / "secret")
    return target


def everything(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_client_hears_who_serves_it(target):
    with client_of(LocalStorage(target, "d"), append_only=True) as client:
        assert client.hello.root == str(target)
        assert client.hello.append_only
        assert set(m.ABILITIES) <= set(client.hello.abilities)


OUTSIDE = [
    b"..", b"../outside/secret", b"d/../../outside/secret", b"/etc/passwd", b"d//a", b"d/", b"/",
    b".", b"", b"d/\0", b"link/secret", b"d/file-link", b"d/" + b"x/" * 40 + b"x", b"\xff/../..",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_target(target, name):
    before = everything(target.parent)
    requests = [
        m.OpenFile(1, name), m.ReadWhole(2, name, 100), m.PutNew(4, name, b"evil"),
        m.Overwrite(5, name, b"evil"), m.Create(6, name), m.TakeLease(8, name, b"evil", ()),
        m.Rename(10, b"d/none", name[:255]), m.LookAtLease(11, name),
        m.Replace(20, name, b"evil", keep_owner=False), m.Rename(21, name, b"e"),
    ]  # fmt: skip
    with client_of(LocalStorage(target, "d")) as client:
        for request in requests:
            reply = client.ask(request)
            # A link in the target itself may be replaced or renamed; it is never followed.
            may_be_done = name == b"d/file-link" and request.id >= 20
            assert isinstance(reply, m.Failed) or may_be_done
    after = everything(target.parent)
    assert set(after) - set(before) <= {"target/d/e"}
    assert (target.parent / "outside" / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        m.encode(m.Exists(1, b"d")),
        m.encode(HELLO) + m.encode(HELLO),
        m.encode(HELLO)[:-3],
        m.encode(HELLO) + m.encode(m.Append(1, 1, b"xyz"))[:-1],
        m.encode(HELLO) + m.encode(m.Done(1)),
    ],
)
def test_who_does_not_speak_the_protocol_is_dropped(data):
    with client_of(MemoryStorage(), greets=False) as client:
        client.raw(data)
    assert "protocol" in client.server.error.message


def test_a_silent_client_is_dropped():
    with client_of(MemoryStorage(), greets=False, silence_s=0) as client:
        client.server.wait()
    assert "silent" in client.server.error.message


def test_a_client_that_dies_leaves_nothing(target):
    before = everything(target)
    with client_of(LocalStorage(target, "d")) as client:
        opened = [
            client.ask(m.CreateHidden(1, b"d/hidden")),
            client.ask(m.Create(2, b"d/growing")),
            client.ask(m.TakeLease(3, b"d/lease", b"who", (b"d",))),
            client.ask(m.Hold(4, b"d")),
        ]
        for number, thing in enumerate(opened[:2], 10):
            client.ask(m.Append(number, thing.handle, b"data"))
        assert everything(target) != before
    assert everything(target) == before
    held = LocalStorage(target, "d").hold("d")
    assert held is not None
    held.close()


def test_what_was_finished_or_published_stays(target):
    with client_of(LocalStorage(target, "d")) as client:
        hidden, growing = client.ask(m.CreateHidden(1, b"d/a")), client.ask(m.Create(2, b"d/b"))
        client.ask(m.Finish(3, hidden.handle))
        client.ask(m.Publish(4, hidden.handle))
        client.ask(m.Finish(5, growing.handle))
        for handle in (hidden.handle, growing.handle):
            assert isinstance(client.ask(m.Finish(6, handle)), m.Failed)
    assert LocalStorage(target, "d").names("d", {Kind.FILE}) == ["a", "b"]


def test_bytes_after_a_gap_are_refused():
    storage = MemoryStorage(room_bytes=10)
    storage.make_directory("d")
    with client_of(storage) as client:
        file = client.ask(m.Create(1, b"d/a"))
        client.send(m.Append(2, file.handle, b"x" * 11), m.Append(3, file.handle, b"y"))
        client.send(m.Finish(4, file.handle))
        replies = client.replies(3)
        assert [replies[id_].kind for id_ in (2, 3, 4)] == ["storage_full", "storage", "storage"]
    assert not storage.exists("d/a")


def test_appended_bytes_keep_their_order():
    storage = MemoryStorage()
    storage.make_directory("d")
    with client_of(storage) as client:
        file = client.ask(m.Create(1, b"d/a"))
        client.send(*(m.Append(2 + n, file.handle, bytes([n % 256])) for n in range(1000)))
        assert all(isinstance(each, m.Done) for each in client.replies(1000).values())
        client.ask(m.Finish(2000, file.handle))
    assert storage.read("d/a", 2000) == bytes(n % 256 for n in range(1000))


def test_thousands_of_requests_are_all_answered():
    storage = MemoryStorage()
    storage.make_directory("d")
    with client_of(storage) as client:
        for begin in range(0, 5000, 500):
            client.send(*(m.Exists(begin + n, b"d") for n in range(500)))
            replies = client.replies(500)
            assert all(reply.value is True for reply in replies.values())


def test_only_so_much_is_open_at_once():
    storage = MemoryStorage()
    storage.make_directory("d")
    storage.put_new("d/a", b"x")
    with client_of(storage) as client:
        for number in range(MAX_OPEN):
            assert isinstance(client.ask(m.OpenFile(number, b"d/a")), m.Opened)
        refused = client.ask(m.OpenFile(MAX_OPEN, b"d/a"))
        assert "open" in refused.message
        client.ask(m.Close(MAX_OPEN, 1))
        assert isinstance(client.ask(m.OpenFile(MAX_OPEN, b"d/a")), m.Opened)


def test_a_handle_stands_for_its_own_kind_alone():
    storage = MemoryStorage()
    storage.make_directory("d")
    with client_of(storage) as client:
        lease = client.ask(m.TakeLease(1, b"d/lease", b"who", ()))
        for request in (
            m.ReadAt(2, lease.handle, 1, 0, "whole"), m.Append(2, lease.handle, b"x"),
            m.Finish(2, lease.handle), m.Publish(2, lease.handle), m.Discard(2, lease.handle),
            m.DirectoryNames(2, lease.handle), m.Refresh(2, 99), m.IsHeld(2, 99),
        ):  # fmt: skip
            assert isinstance(client.ask(request), m.Failed)
        assert isinstance(client.ask(m.Close(2, 99)), m.Done)
        assert client.ask(m.IsHeld(2, lease.handle)).value is True


def test_a_file_that_is_sent_as_a_whole_is_bounded():
    with client_of(MemoryStorage()) as client:
        for _ in range(m.MAX_WHOLE_BYTES // PIECE_BYTES + 1):
            client.raw(m.encode(m.More(1, b"x" * PIECE_BYTES)))
    assert "too long" in client.server.error.message


def test_a_file_that_is_read_as_a_whole_is_bounded():
    storage = MemoryStorage()
    storage.make_directory("d")
    with client_of(storage) as client:
        assert isinstance(client.ask(m.ReadWhole(1, b"d/a", 1 << 40)), m.Failed)
        directory = client.ask(m.OpenDirectory(2, b"d"))
        assert isinstance(client.ask(m.DirectoryRead(3, directory.handle, b"a", 1 << 40)), m.Failed)


def test_data_before_a_request_that_takes_none_is_refused():
    with client_of(MemoryStorage()) as client:
        client.raw(m.encode(m.More(1, b"x")) + m.encode(m.Exists(1, b"d")))
    assert "takes none" in client.server.error.message


def test_a_lease_whose_looker_dies_stays():
    storage = MemoryStorage()
    storage.make_directory("d")
    storage.put_new("d/lease", b"who")
    with client_of(storage) as client:
        client.send(m.LookAtLease(1, b"d/lease"))
        look = m.decode_reply(next(client._bodies))
        assert look.content == b"who"
    assert storage.exists("d/lease")


def test_an_error_of_the_server_itself_says_nothing_of_it(monkeypatch):
    def fail(_self, _name):
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(MemoryStorage, "exists", fail)
    with client_of(MemoryStorage()) as client:
        failed = client.ask(m.Exists(1, b"d"))
        assert "RuntimeError" in failed.message
        assert "secret" not in failed.message


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS, max_size=30))
def test_any_requests_are_each_answered_once(requests):
    storage = MemoryStorage()
    storage.make_directory("d")
    with client_of(storage) as client:
        client.send(*numbered(requests))
        assert set(client.replies(len(requests))) == set(range(len(requests)))
        client.send(m.Ping(1 << 40))
        assert client.replies(1)
    assert client.server.error is None
    assert storage.held == set()
