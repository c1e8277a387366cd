"""The programs in docs/how-to/library.md, by the title of their section."""

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs/how-to/library.md"


def _examples() -> dict[str, str]:
    sections = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {
        title: program
        for title, text in zip(sections[::2], sections[1::2], strict=True)
        for program in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    }


EXAMPLES: Final = _examples()


def placed(program: str, config: Path, restored: Path) -> str:
    """Return a program of the page with the paths of a test."""
    places = {
        "/etc/virt-backup/config.yml": config,
        "/srv/restored": restored,
        "/mnt/usb": restored.with_name("usb"),
    }
    for shown, place in places.items():
        program = program.replace(shown, str(place))
    return program
