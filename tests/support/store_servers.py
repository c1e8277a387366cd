"""Store servers for tests: in a thread, or a process of their own; no ssh (``ssh_server.py``)."""

import os
import sys
from threading import Thread

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.served.channel import Channel
from virtbackup_async.repository.storage.served.connection import Connection
from virtbackup_async.repository.storage.served.link import Link
from virtbackup_async.repository.storage.served.process_server import ProcessServer
from virtbackup_async.repository.storage.served.session import serve
from virtbackup_async.repository.storage.served.storage import ServedStorage

LOCATION = StorageLocation.of("ssh://nas/srv/backups")


class ThreadServer:
    """Serves a storage in a thread of this process.

    Attributes:
        channel: the client's.
        error: what ended the session, None for its client's end.
    """

    def __init__(self, storage, silence_s=None, **options):
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.channel = Channel(ours_in, ours_out)
        self.error = None
        self._theirs = self.make_channel(theirs_in, theirs_out, silence_s)
        self._thread = Thread(target=self._serve, args=(storage, options), daemon=True)
        self._thread.start()

    def make_channel(self, *ends):
        return Channel(*ends)

    def wait(self):
        """Wait until the session has ended by itself."""
        self._thread.join()

    def end(self):
        self.channel.close_output(10)
        self._thread.join()

    def _serve(self, storage, options):
        try:
            serve(storage, self._theirs, **options)
        except StorageError as error:
            self.error = error
        finally:
            self._theirs.close_output(10)
            self._theirs.close_input()


class Servers:
    """Makes a connection each time it is called; the last server is ``servers[-1]``."""

    def __init__(self, make):
        self._make = make
        self.servers = []
        self.connections = []

    def __call__(self):
        self.servers.append(self._make())
        self.connections.append(Connection(self.servers[-1]))
        return self.connections[-1]

    def wait(self):
        """Wait until all have ended; what their clients had open is discarded then."""
        for server in self.servers:
            server.wait()


def served(storage, **options):
    """A storage that a thread serves."""
    return served_by(Servers(lambda: ThreadServer(storage, **options)))


def served_by(connect, **options):
    """A storage of connections; those that are lost are made again without a pause."""
    return ServedStorage(LOCATION, Link(connect, str(LOCATION), pauses_s=(0, 0, 0), **options))


_SERVE = """
import sys
from pathlib import Path
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.served.serving import serve_streams
serve_streams(LocalStorage(Path(sys.argv[1]), sys.argv[2]))
"""


def served_directory(directory, reserve="d"):
    """A storage in a directory that a process of its own serves."""
    command = [sys.executable, "-c", _SERVE, str(directory), reserve]
    return served_by(Servers(lambda: ProcessServer(command, lambda _ended: None)))
