"""What `scripts/record-session` types, and when it takes a picture.

The page docs/tutorial/in-pictures.md shows every picture, in this order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SIZES = ((80, 24), (120, 40))
PICTURES = Path("docs") / "images" / "session"


@dataclass(frozen=True)
class Moment:
    """A picture to be taken while a command runs, once the screen matches ``pattern``."""

    picture: str
    pattern: str


@dataclass(frozen=True)
class Step:
    """A command, and its pictures; questions are answered with Return, which takes the default.

    Attributes:
        picture: of the screen when the command has ended.
        command: a line for the shell.
        meanwhile: the pictures before that, in order.
        before: shell commands that a guest runs first, so that there is something to back up.
    """

    picture: str
    command: str
    meanwhile: tuple[Moment, ...] = ()
    before: str | None = None


STEPS = (
    Step(
        "init-doctor",
        "virtbackup init",
        (
            Moment("init", r"Where to store"),
            Moment("init-file", r"Write this to"),
        ),
    ),
    Step("doctor", "virtbackup doctor"),
    Step(
        "backup",
        "virtbackup backup",
        (Moment("backup-live", r"[3-7]\d %"),),
    ),
    Step(
        "backup-changes",
        "virtbackup backup web-1 --note 'before the upgrade'",
        before="dd if=/dev/urandom of=/mnt/vda/new bs=1M count=8 2>/dev/null; sync",
    ),
    Step("list", "virtbackup list"),
    Step("show", "virtbackup show web-1"),
    Step("restore", "virtbackup restore web-1 /srv/web-copy --define --start --name web-copy"),
)


def file_of(picture: str, size: tuple[int, int]) -> Path:
    """Return where a picture of a terminal of that size is kept, in the repository."""
    return PICTURES / f"{picture}-{size[0]}x{size[1]}.svg"


def pictures() -> Iterator[str]:
    """Yield the names of all pictures, in the order in which they are taken."""
    for step in STEPS:
        yield from (moment.picture for moment in step.meanwhile)
        yield step.picture
