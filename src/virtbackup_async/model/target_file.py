"""The name of a file in a target, wherever the target's files are stored."""

from pathlib import Path

from msgspec import Struct

from virtbackup_async.model.storage_location import StorageLocation


class TargetFile(Struct, frozen=True, gc=False, order=True):
    """A file or a directory in a target, whether it exists or not; the target itself, by no name.

    ``str()`` shows it to people: a path, or a URL.

    Attributes:
        target: where the target's files are.
        stored_name: its name in the target's storage, such as ``web/20260301-021500_3_web.json``.
    """

    target: StorageLocation
    stored_name: str = ""

    @classmethod
    def of(cls, path: Path, depth: int = 2) -> "TargetFile":
        """Return a local file whose last ``depth`` steps are in a target.

        ::

            TARGET/web/20260301-021500_3_web.json      has a depth of 2
        """
        target = path.parents[depth - 1] if depth else path
        return cls(StorageLocation.of(target), "/".join(path.parts[len(path.parts) - depth :]))

    def __str__(self) -> str:
        target = str(self.target)
        if not self.stored_name:
            return target
        return f"{target}{self.stored_name}" if target == "/" else f"{target}/{self.stored_name}"

    def __truediv__(self, step: str) -> "TargetFile":
        return TargetFile(self.target, f"{self.stored_name}/{step}" if self.stored_name else step)

    @property
    def name(self) -> str:
        """The last step of its name."""
        return self.stored_name.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last step without its suffix, as that of a ``Path``."""
        name = self.name
        at = name.rfind(".")
        return name[:at] if 0 < at < len(name) - 1 else name

    @property
    def parent(self) -> "TargetFile":
        """The directory that it is in."""
        return TargetFile(self.target, self.stored_name.rpartition("/")[0])

    def with_name(self, name: str) -> "TargetFile":
        """Return another file of the same directory."""
        return self.parent / name

    @property
    def local(self) -> Path:
        """Its path on this machine; StorageError if the target is no local directory."""
        return self.target.directory / self.stored_name


AnyFile = TargetFile | Path
"""A file of a target, or one of this host: both have a ``name``, and a ``str`` for people."""
