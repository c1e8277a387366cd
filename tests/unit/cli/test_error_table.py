"""docs/reference/errors.md: what an admin sees of every kind of error, provoked one by one."""

import ast
import re
import time
from pathlib import Path

import pytest

from error_samples import SAMPLERS
from error_table import NEVER_RAISED, documented, kinds, row, sample
from virtbackup_async import errors

SOURCE = Path(errors.__file__).parent
# Whatever says it all, or leads to the rows above.
NEED_NO_ADVICE = {errors.BackupsFailedError, errors.ConfigError, errors.NotFoundError}


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_every_class_has_a_line_and_every_line_a_class():
    assert list(documented()) == [kind.__name__ for kind in kinds()]
    assert set(SAMPLERS) | set(NEVER_RAISED) == set(kinds())
    assert len(kinds()) > 30


@pytest.mark.parametrize("kind", SAMPLERS, ids=lambda kind: kind.__name__)
def test_what_is_seen_is_as_the_page_has_it(kind, tmp_path_factory):
    """Sockets need a short path."""
    made = sample(kind, tmp_path_factory.mktemp("e"))
    assert (made.exit_code, made.error_code) == (kind.exit_code, errors.code_of(kind))
    assert row(kind, made) == documented()[kind.__name__], "run scripts/update-error-table"
    assert made.advice in made.seen
    assert made.advice or kind in NEED_NO_ADVICE
    assert made.seen.isprintable()
    assert not re.search(r"[0-9a-f]{64}|\d{5,} bytes|Traceback", made.seen)


def made_of(tree, name):
    """The places where an error of a class is made."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
            yield node.lineno


def test_a_class_without_a_sample_is_never_raised_itself():
    assert list(made_of(ast.parse("raise errors.NbdError('x')"), "NbdError")) == [1]
    trees = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
    assert len(trees) > 200
    for kind in NEVER_RAISED:
        found = [path for path, tree in trees.items() if list(made_of(tree, kind.__name__))]
        assert found == []


def test_a_kind_that_one_module_knows_has_the_code_of_its_public_base():
    """Programs look for the codes of the page, and for no other."""

    class _OwnError(errors.NbdRefusedError):
        pass

    class _OwnOfThatError(_OwnError):
        pass

    assert errors.code_of(_OwnOfThatError) == "nbd_refused"
    known = {errors.code_of(kind) for kind in kinds()}
    assert {errors.code_of(kind) for kind in all_kinds(errors.VirtBackupError)} <= known


def all_kinds(kind):
    yield kind
    for below in kind.__subclasses__():
        if below.__module__.startswith("virtbackup_async"):
            yield from all_kinds(below)
