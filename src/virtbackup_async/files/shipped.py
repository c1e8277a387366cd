"""Files that come with the program: the example configuration, the templates of the systemd units.

Each is in the repository once. A wheel has a copy in the package (``pyproject.toml`` says of what);
a checkout, and what is installed from one to be edited, reads the repository's own.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from virtbackup_async.errors import StorageError

_PACKAGE: Final = "virtbackup_async"
_FOLDER: Final = "shipped"
EXAMPLE_CONFIG: Final = "config.yml"
SYSTEMD_UNITS: Final = "contrib/systemd"


def shipped(name: str) -> Traversable:
    """Return a file or a folder that comes with the program, by its path in the repository.

    Raises:
        StorageError: it was not installed.
    """
    package = files(_PACKAGE)
    inside = package.joinpath(_FOLDER, name)
    if inside.is_file() or inside.is_dir():
        return inside
    source = Path(str(package)).parent
    checkout = source.parent
    if source.name == "src" and (checkout / "pyproject.toml").is_file():
        return checkout / name
    raise StorageError(
        f"{name} was not installed with the program", hint="Install it again, from its wheel."
    )
