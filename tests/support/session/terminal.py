"""A shell on a terminal of a given size, in tmux."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.ansi import AnsiDecoder

from session.pictures import picture_console, write_picture


class Terminal:
    """A shell in tmux; ``size`` is columns and rows."""

    def __init__(self, socket: Path, status: Path, size: tuple[int, int]) -> None:
        self.size = size
        self._socket = socket
        self._status = status

    def tell(self, *words: str) -> str:
        """Run a command of tmux and return what it prints."""
        done = subprocess.run(self._argv(*words), check=True, capture_output=True, text=True)
        return done.stdout

    def text(self) -> str:
        """What the screen shows, down to the line of the cursor."""
        lines = self.tell("capture-pane", "-p", ";", "display", "-p", "#{cursor_y}").split("\n")
        return "\n".join(lines[: int(lines[self.size[1]]) + 1])

    @contextmanager
    def typed(self, command: str) -> Iterator[Callable[[], bool]]:
        """Type a command on a cleared screen; yields what says whether it has ended."""
        self.tell("send-keys", "C-l")
        prompt = subprocess.Popen(self._argv("wait-for", "prompt"))
        try:
            self.tell("send-keys", "-l", command)
            self.tell("send-keys", "Enter")
            yield lambda: prompt.poll() is not None
        finally:
            prompt.kill()
            prompt.wait()

    def exit_code(self) -> int:
        """The exit code of the last command."""
        return int(self._status.read_text())

    def picture(self, title: str, out: Path) -> None:
        """Write what the screen shows now, without the empty rows at its end."""
        width, height = self.size
        console = picture_console(width, height)
        shown = self.tell("capture-pane", "-p", "-e").rstrip("\n")
        lines = list(AnsiDecoder().decode(shown))
        for line in lines:
            console.print(line, no_wrap=True, overflow="crop")
        write_picture(console, title, out)

    def _argv(self, *words: str) -> list[str]:
        return ["tmux", "-f", "/dev/null", "-S", str(self._socket), *words]


@contextmanager
def open_terminal(work: Path, uri: str, size: tuple[int, int]) -> Iterator[Terminal]:
    status = work / "status"
    environment = {
        "HOME": str(work),
        "LANG": "C.UTF-8",
        "LIBVIRT_DEFAULT_URI": uri,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "PROMPT_COMMAND": f"echo $? >{status}; tmux wait-for -S prompt",
        "PS1": "# ",
        "VIRTBACKUP_CONFIG": "/srv/virtbackup.yml",
        "VIRTBACKUP_STATE_DIRECTORY": str(work / "state"),
        "XDG_STATE_HOME": str(work / "state"),
    }
    assignments = [f"{name}={value}" for name, value in environment.items()]
    shell = shlex.join(["env", *assignments, "bash", "--norc", "--noprofile"])
    terminal = Terminal(work / "tmux", status, size)
    width, height = map(str, size)
    terminal.tell(
        "new-session", "-d", "-x", width, "-y", height, shell, ";", "set", "status", "off"
    )
    try:
        terminal.tell("wait-for", "prompt")
        yield terminal
    finally:
        terminal.tell("kill-server")
