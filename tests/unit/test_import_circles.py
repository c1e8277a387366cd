"""No module of the program imports itself through others, not even for its types.

A circle hides which module is the foundation and which is built on it; the import linter sees
only those between layers.
"""

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def check(graph):
    TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    ).prepare()


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph("virtbackup_async", cache_dir=None)
    assert len(graph.modules) > 200
    check(graph)


def test_a_circle_that_is_only_for_types_is_found(tmp_path, monkeypatch):
    package = tmp_path / "going_round"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("from going_round import two\n")
    (package / "two.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from going_round import one\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CycleError):
        check(grimp.build_graph("going_round", cache_dir=None))
