"""A storage on another machine: ``ssh`` starts the store server there.

``ssh://[USER@]HOST[:PORT]/DIRECTORY``. All that is known of the way there (keys, agent, jump hosts,
known hosts) is in the user's configuration of ssh; nothing is asked, so an unknown host is refused.
The key may have a forced command, which then says which directory is served, and to which role.
"""

import re
import shlex
from threading import Lock
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import SSH, StorageLocation
from virtbackup_async.processes import Ended
from virtbackup_async.repository.storage.served.connection import Connection, LostError
from virtbackup_async.repository.storage.served.failures import printable
from virtbackup_async.repository.storage.served.link import Link
from virtbackup_async.repository.storage.served.process_server import ProcessServer
from virtbackup_async.repository.storage.served.storage import ServedStorage

_OPTIONS: Final = (
    "BatchMode=yes",
    "ConnectTimeout=20",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ClearAllForwardings=yes",
)
# None of them can begin with a dash: ssh would take it for an option.
_URL: Final = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<directory>/.*)",
    re.DOTALL,
)
_OWN_FAILURE: Final = 255
_UNKNOWN_COMMAND: Final = 127


class Destination(Struct, frozen=True):
    """Where ssh goes, and what it starts there.

    Attributes:
        login: ``[USER@]HOST``, as ssh takes it.
        port: None for the one of ssh's configuration.
        directory: the target on that machine.
    """

    login: str
    port: int | None
    directory: str

    @classmethod
    def of(cls, location: StorageLocation) -> "Destination":
        """Return the destination that a location names.

        Raises:
            StorageError: it names none.
        """
        found = _URL.fullmatch(location.path)
        if found is None or "\0" in location.path or len(found["directory"].strip("/")) == 0:
            raise StorageError(
                f"target {location} names no directory on a host",
                hint="A target over ssh is ssh://[USER@]HOST[:PORT]/DIRECTORY.",
            )
        host = found["host"].strip("[]")
        login = f"{found['user']}@{host}" if found["user"] else host
        return cls(login, int(found["port"]) if found["port"] else None, found["directory"])

    def command(self, ssh: str = SSH) -> list[str]:
        """Return the command that starts the server; a shell there sees its last word alone."""
        port = [] if self.port is None else ["-p", str(self.port)]
        options = [word for option in _OPTIONS for word in ("-o", option)]
        start = f"virtbackup store-server -- {shlex.quote(self.directory)}"
        return [ssh, "-T", *options, *port, "--", self.login, start]

    def explain(self, ended: Ended) -> LostError | None:
        """Say why ssh ended; None if it did because it was no longer needed."""
        words = printable(ended.last_words).rstrip(".")
        if ended.returncode == 0:
            return None
        if ended.returncode < 0:
            return LostError("ssh was killed")
        if ended.returncode == _UNKNOWN_COMMAND:
            return LostError(
                f"there is no program 'virtbackup' for {self.login} there: {words}",
                hint="Install virtbackup-async on that machine, where a login finds it.",
                is_final=True,
            )
        if ended.returncode != _OWN_FAILURE:
            return LostError(words.removeprefix("virtbackup: "), is_final=True)
        return LostError(
            words if words.startswith("ssh") else f"ssh: {words}",
            hint=f"See that `ssh -o BatchMode=yes {self._by_hand} true` works for this user.",
            is_final=any(sign in words for sign in _FINAL),
        )

    @property
    def _by_hand(self) -> str:
        return self.login if self.port is None else f"-p {self.port} {self.login}"


_FINAL: Final = ("Permission denied", "Host key verification failed", "Bad configuration option")
_opened: dict[StorageLocation, ServedStorage] = {}
_turn: Final = Lock()


def open_ssh_storage(location: StorageLocation) -> ServedStorage:
    """Return the storage at a location, one for the whole process: all share a connection.

    Blocks for nothing: the first verb connects.

    Raises:
        StorageError: the URL names no directory on a host.
    """
    destination = Destination.of(location)
    with _turn:
        if location not in _opened:
            link = Link(lambda: _connect(destination), str(location))
            _opened[location] = ServedStorage(location, link)
        return _opened[location]


def close_all() -> None:
    """Close the connections of this process; those in use are made again. Blocks."""
    with _turn:
        storages = list(_opened.values())
        _opened.clear()
    for storage in storages:
        storage.link.close()


def _connect(destination: Destination) -> Connection:
    try:
        server = ProcessServer(destination.command(), destination.explain)
    except OSError as error:
        raise LostError(
            f"ssh cannot be started: {error.strerror}",
            hint="Install OpenSSH's client on this host.",
            is_final=True,
        ) from error
    return Connection(server)
