"""The layers and folders of the package, as tables in Markdown; `update-docs` writes them.

The order is the import linter's, out of `pyproject.toml`; the purposes are the first lines of the
packages' docstrings.
"""

import ast
import tomllib
from itertools import chain
from pathlib import Path

NAME = "virtbackup_async"


def layers_table(root: Path) -> str:
    """Return the layers with their level; those of one level do not import each other."""
    rows = ["| Level | Layer | Contents |", "|---:|---|---|"]
    for level, names in enumerate(_layers(root), 1):
        rows += [f"| {level} | `{name}` | {_purpose(root, name)} |" for name in names]
    return "\n".join(rows)


def folders_table(root: Path) -> str:
    """Return every folder with its purpose, layer by layer."""
    source = root / "src" / NAME
    rows = ["| Folder | Contents |", "|---|---|"]
    for name in chain.from_iterable(_layers(root)):
        rows.append(
            f"| `{name}{'/' if (source / name).is_dir() else '.py'}` | {_purpose(root, name)} |"
        )
        inner = sorted(path.parent for path in (source / name).glob("*/__init__.py"))
        rows += [f"| `{path.relative_to(source)}/` | {_purpose(root, path)} |" for path in inner]
    return "\n".join(rows)


def _layers(root: Path) -> list[list[str]]:
    linted = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [
        contract
        for contract in linted["contracts"]
        if contract["type"] == "layers" and contract["containers"] == [NAME]
    ]
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def _purpose(root: Path, name: str | Path) -> str:
    place = root / "src" / NAME / name
    module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return ast.get_docstring(ast.parse(module.read_text())).splitlines()[0].replace("``", "`")
