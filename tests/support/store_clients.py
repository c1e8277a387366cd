"""Clients of a store server that send what they like, and all requests that there are."""

import os
from contextlib import contextmanager

from hypothesis import strategies as st
from msgspec.structs import replace

from store_servers import ThreadServer
from virtbackup_async.repository.storage import layout
from virtbackup_async.repository.storage.served import messages as m

HELLO = m.Hello(1)


class Client:
    """Sends what it likes."""

    def __init__(self, server):
        self.server = server
        self._bodies = server.channel.receive()
        self.hello = m.decode_reply(next(self._bodies))

    def send(self, *messages):
        for message in messages:
            self.server.channel.send(message)

    def raw(self, data):
        os.write(self.server.channel._output, data)

    def replies(self, count):
        """So many last messages, by their numbers."""
        found: dict = {}
        while len(found) < count:
            reply = m.decode_reply(next(self._bodies))
            assert isinstance(reply, m.Reply)
            if m.is_last(reply):
                assert reply.id not in found
                found[reply.id] = reply
        return found

    def ask(self, message):
        self.send(message)
        return self.replies(1)[message.id]


@contextmanager
def client_of(storage, *, greets=True, **options):
    server = ThreadServer(storage, **options)
    client = Client(server)
    if greets:
        client.send(HELLO)
    try:
        yield client
    finally:
        server.end()
        server.channel.close_input()


NAMES = st.sampled_from(
    [
        *(b"d", b"d/a", b"d/b", b"", b"..", b"d/leases/x", b"x", b"\xff", b"d/a.json.removed"),
        *(f"{layout.DIRECTORY}/{name}".encode() for name in (
            "", "repository", "condemned", "damaged", "keys/a", "leases/sweep",
            f"leases/{'a' * 24}", f"packs/aa/{'a' * 32}.pack", f"index/{'a' * 24}-1.index",
            "reserve-0",
        )),
        layout.DIRECTORY.encode(), layout.PACKS.encode(), layout.LEASES.encode(),
    ]
)  # fmt: skip
"""Names of all kinds, also of a repository."""
HANDLES = st.integers(0, 6)
DATA = st.binary(max_size=20)
REQUESTS = st.one_of(
    *(st.builds(kind, st.just(0), NAMES) for kind in (
        m.StatusOf, m.Exists, m.OpenFile, m.OpenDirectory, m.Hold, m.MakeDirectory, m.SyncNames,
        m.Create, m.CreateHidden, m.Remove, m.Clock,
    )),
    *(st.builds(kind, st.just(0), HANDLES) for kind in (
        m.DirectoryNames, m.Finish, m.Publish, m.PublishExclusively, m.Discard, m.Refresh, m.IsHeld,
        m.Close,
    )),
    st.builds(m.Names, st.just(0), NAMES, st.just(("file", "directory", "nonsense"))),
    st.builds(m.Sizes, st.just(0), st.lists(NAMES, max_size=5).map(tuple)),
    st.builds(m.ReadWhole, st.just(0), NAMES, st.integers(0, 100)),
    st.builds(m.Replace, st.just(0), NAMES, DATA, st.booleans()),
    st.builds(m.Rename, st.just(0), NAMES, NAMES),
    st.builds(m.PutNew, st.just(0), NAMES, DATA),
    st.builds(m.Overwrite, st.just(0), NAMES, DATA),
    st.builds(m.TakeLease, st.just(0), NAMES, DATA, st.lists(NAMES, max_size=3).map(tuple)),
    st.builds(m.RemoveTemporary, st.just(0), st.lists(NAMES, max_size=3).map(tuple), st.floats()),
    st.builds(m.FreeBytes, st.just(0)),
    st.builds(m.KeepReserve, st.just(0)),
    st.builds(m.ReleaseReserve, st.just(0)),
    st.builds(m.ReadAt, st.just(0), HANDLES, st.integers(0, 100), st.integers(0, 100), st.text()),
    st.builds(m.DirectoryRead, st.just(0), HANDLES, NAMES, st.integers(0, 100)),
    st.builds(m.Append, st.just(0), HANDLES, DATA),
)  # fmt: skip


def numbered(requests):
    """The requests, each with a number of its own from 0 on."""
    return [replace(request, id=number) for number, request in enumerate(requests)]
