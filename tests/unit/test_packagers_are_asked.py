"""A packager is one class in the model and one folder: nothing else knows its name."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

import virtbackup_async
from virtbackup_async.model.packager import PACKAGER_TYPES

SOURCE = Path(virtbackup_async.__file__).parent
# The class itself; the folders; old raw data, whose words have a meaning of their own for ever;
# and the repository, a file of which has the same name.
MAY_NAME_THEM = ("model/packager.py", "packagers/", "compat/", "repository/")


@pytest.mark.parametrize("name", PACKAGER_TYPES)
@pytest.mark.parametrize("module", ["reader", "writer"])
def test_each_packager_has_a_folder(name, module):
    assert find_spec(f"virtbackup_async.packagers.{name}.{module}") is not None


def test_each_folder_of_a_packager_has_a_class():
    folders = {path.parent.name for path in (SOURCE / "packagers").glob("*/writer.py")}
    assert folders == set(PACKAGER_TYPES)


def test_no_other_module_names_a_packager_or_compares_types():
    found = {
        module: names
        for path in SOURCE.rglob("*.py")
        if not (module := str(path.relative_to(SOURCE))).startswith(MAY_NAME_THEM)
        and (names := [*_names(ast.parse(path.read_text()))])
    }
    assert found == {}, "ask model/packager.py instead"


def test_a_comparison_is_found():
    program = """
if packager.type == "zip": pass
match group.packager.type:
    case "zstd": pass
kind = "repository"
"""
    assert [line for line, _ in _names(ast.parse(program))] == [2, 3, 4, 5]


def _names(tree):
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Constant) and node.value in PACKAGER_TYPES:
            if id(node) not in documentation:
                yield node.lineno, node.value
        elif isinstance(node, ast.Compare) and any(map(_is_type, [node.left, *node.comparators])):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Match) and _is_type(node.subject):
            yield node.lineno, ast.unparse(node.subject)


def _is_type(node):
    """Tell whether it is the ``type`` of something called a packager."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "type"
        and ast.unparse(node.value).endswith("packager")
    )
