"""The base of all methods: the runtime that they pass to the engine."""

from virtbackup_async.config.schema import Config
from virtbackup_async.engine.runtime import Runtime


class Methods:
    """The methods of one theme; ``VirtBackup`` inherits from all themes.

    A command's module is imported when its method is called, so that ``list`` starts without
    libvirt and numpy.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime: Runtime | None = runtime

    @property
    def config(self) -> Config:
        """The configuration."""
        return self._open.config

    def close(self) -> None:
        """Refuse further calls; the end of ``open_virtbackup`` calls it."""
        self._runtime = None

    @property
    def _open(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError("this VirtBackup is closed: use it inside `async with`")
        return self._runtime

    async def _ready(self) -> Runtime:
        runtime = self._open
        await runtime.refresh()
        return runtime


def group_and_name(group: str, domain: str | None) -> tuple[str | None, str]:
    """Return the group, None if none is named, and the name of a backup in it."""
    return (None, group) if domain is None else (group, domain)
