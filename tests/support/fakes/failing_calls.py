"""Calls of ``os`` that fail, as those on a broken disk do, each chosen by what it is about."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def failing(name: str, is_meant: Callable[[Path], bool], code: int) -> Iterator[list[Path]]:
    """Let a function of ``os`` fail on some files; gives those that it has failed on.

    Args:
        name: of the function; its last path, or its descriptor, is what it is about.
        is_meant: tells of a path whether to fail.
        code: of the error.
    """
    real = getattr(os, name)
    failed: list[Path] = []

    def wrapped(*args: object, **options: object) -> object:
        path = _about(args, options)
        if is_meant(path):
            failed.append(path)
            raise OSError(code, os.strerror(code), str(path))
        return real(*args, **options)

    setattr(os, name, wrapped)
    try:
        yield failed
    finally:
        setattr(os, name, real)


def _about(args: tuple[object, ...], options: dict[str, object]) -> Path:
    if isinstance(args[0], int):
        return Path(f"/proc/self/fd/{args[0]}").readlink()
    paths = [arg for arg in args if isinstance(arg, str | Path)]
    directory = options.get("dst_dir_fd", options.get("dir_fd"))
    beside = Path() if directory is None else Path(f"/proc/self/fd/{directory}").readlink()
    return beside / paths[-1]
