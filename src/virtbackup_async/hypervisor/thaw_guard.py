"""Thaws a guest when the program that froze it cannot: it was stopped, killed, or hangs.

Run as a program of its own, ``python -I -S thaw_guard.py DIRECTORY-OF-LIBVIRT``, by ``guard``, who
speaks to it by bytes on its stdin::

    one line of JSON    whom to thaw: uri, username, passphrase, uuid, limit_s, thaw_for_s
    ARM                 the guest is about to be frozen, or frozen still; it has limit_s from here
    RELEASE             it is thawed; asks for the verdict
    (end)               whoever froze it is gone: thaw it now, if it was armed and not released

and on its stdout, one line each::

    ready               connected, the domain is found; or ``no`` and the reason, and the end
    kept, thawed        the verdict: it was left alone, or had to be thawed by the guard

It imports nothing of ours, nor the site's packages, so that it is up in a moment and stays small.
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
    """The one guest that is watched over; ``connect`` gives libvirt's domain, as often as asked."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._domain: Any = None
        self._deadline: float | None = None
        self._thawed = False

    def connect(self) -> None:
        """Find the domain; raises ``libvirtError``."""
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
        """Do as stdin says, until its end."""
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
        """Return what was said, nothing at the end; None when the deadline has passed."""
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
        """Thaw the guest, with patience for an agent that is busy and a daemon that restarts."""
        end = time.monotonic() + self._request["thaw_for_s"]
        while time.monotonic() < end:
            try:
                self._domain.fsThaw()
            except Exception:  # noqa: BLE001 -- whatever it is: nobody else thaws this guest
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
    """Read one line, and not a byte behind it."""
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
        pass  # only root may


def main() -> None:
    """Stand guard over one guest."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _spare_from_oom()
    # Behind the standard library: nothing there may take the place of a module of it.
    sys.path.append(sys.argv[1])
    guard = Guard(json.loads(_line()))
    try:
        guard.connect()
    except Exception as error:  # noqa: BLE001 -- told to who asked for a guard
        _say(f"no {' '.join(str(error).split())}")
        return
    try:
        _say("ready")
    except BrokenPipeError:
        return
    guard.watch()
    # To take the interpreter apart would only keep a backup waiting.
    os._exit(0)


if __name__ == "__main__":
    main()
