"""Thaws a guest if the program that froze it cannot: because it was stopped, killed, or hangs.

``guard`` runs it as a program, ``python -I -S thaw_guard.py DIRECTORY-OF-LIBVIRT``, and writes to
its stdin::

    one line of JSON    the guest to thaw: uri, username, passphrase, uuid, limit_s, thaw_for_s
    ARM                 the guest is about to be frozen, or still frozen; it has limit_s from here
    RELEASE             the guest is thawed; asks for the verdict
    (end)               the other program is gone: thaw now, if armed and not released

It answers on its stdout, one line each::

    ready               connected, the domain is found; or ``no`` and the reason, and it ends
    kept, thawed        the verdict: the guest stayed frozen, or the guard had to thaw it

It imports neither the package nor other packages of the site, so that it starts at once and stays
small.
"""

import json
import os
import select
import signal
import sys
import time
from typing import Any

ARM, RELEASE = b"a", b"r"
RETRY_S = 0.2
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Guard:
    """The guard of one guest."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._domain: Any = None
        self._deadline: float | None = None
        self._thawed = False

    def connect(self) -> None:
        """Connect to libvirt and find the domain; raises ``libvirtError``."""
        import libvirt  # noqa: PLC0415 -- from the directory that the command line names

        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        uri, username = self._request["uri"], self._request["username"]
        passphrase = self._request["passphrase"]
        answers = {libvirt.VIR_CRED_AUTHNAME: username, libvirt.VIR_CRED_PASSPHRASE: passphrase}

        def answer(credentials: list[list[Any]], _data: object) -> int:
            for credential in credentials:
                if answers.get(credential[0]) is None:
                    return -1
                credential[4] = answers[credential[0]]
            return 0

        connection = libvirt.openAuth(uri, [list(answers), answer, None], 0)
        self._domain = connection.lookupByUUIDString(self._request["uuid"])

    def watch(self) -> None:
        """Obey stdin, until its end."""
        while True:
            heard = self._hear()
            if heard is None:
                self._thaw()
                self._deadline, self._thawed = None, True
            elif not heard:
                if self._deadline is not None:
                    self._thaw()
                return
            else:
                self._obey(heard)

    def _hear(self) -> bytes | None:
        """Return the bytes from stdin, none at its end; None if the deadline has passed."""
        wait_s = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
        if not select.select([sys.stdin], [], [], wait_s)[0]:
            return None
        return os.read(sys.stdin.fileno(), 4096)

    def _obey(self, heard: bytes) -> None:
        for number in heard:
            if bytes([number]) == ARM:
                self._deadline = time.monotonic() + self._request["limit_s"]
            elif bytes([number]) == RELEASE:
                self._deadline = None
                _say("thawed" if self._thawed else "kept")

    def _thaw(self) -> None:
        """Thaw the guest; try again while its agent is busy, or libvirt's daemon restarts."""
        end = time.monotonic() + self._request["thaw_for_s"]
        while time.monotonic() < end:
            try:
                self._domain.fsThaw()
            except Exception:  # noqa: BLE001 -- no error is final: nobody else thaws this guest
                time.sleep(RETRY_S)
            else:
                return
            try:
                self.connect()
            except Exception:  # noqa: BLE001, S112 -- the same
                continue


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def _line() -> bytes:
    """Read one line, and no byte after it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line


def _spare_from_oom() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write("-900")
    except OSError:
        pass  # only root is permitted


def main() -> None:
    """Guard one guest."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _spare_from_oom()
    # After the standard library, so that no file there replaces one of its modules.
    sys.path.append(sys.argv[1])
    guard = Guard(json.loads(_line()))
    try:
        guard.connect()
    except Exception as error:  # noqa: BLE001 -- reported to the other program
        _say(f"no {' '.join(str(error).split())}")
        return
    try:
        _say("ready")
    except BrokenPipeError:
        return
    guard.watch()
    # To shut the interpreter down would only keep a backup waiting.
    os._exit(0)


if __name__ == "__main__":
    main()
