"""scripts/lib/mutations.py: each mistake is one, stands where it says, and is still Python."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

from mutations import mutants_of  # noqa: E402


@pytest.mark.parametrize(
    ("code", "mistakes"),
    [
        ("x = a < b\n", ["x = (a <= b)\n"]),
        ("x = a is None\n", ["x = (a is not None)\n"]),
        ("x = a and b\n", ["x = (a or b)\n"]),
        ("x = not a\n", ["x = (a)\n"]),
        ("x = 'é' + a\n", ["x = ('é' - a)\n"]),
        ("x = True\n", ["x = (False)\n"]),
        ("x = b if a else c\n", ["x = (b)\n", "x = (c)\n"]),
        ("if a:\n    f()\n", ["if a:\n    pass\n"]),
        ("async def f():\n    await g()\n", ["async def f():\n    pass\n"]),
        ("for a in b:\n    continue\n", ["for a in b:\n    pass\n"]),
        ("raise E\n", ["pass\n"]),
    ],
)
def test_a_mistake_of_each_kind(code, mistakes):
    assert [mutant.source for mutant in mutants_of(code)] == mistakes


@pytest.mark.parametrize(
    "code",
    [
        '"""A text."""\n',
        "from a import b\n",
        "def f(a: int = 1) -> int: ...\n",
        "class A(B, frozen=True):\n    x: int\n",
        "if TYPE_CHECKING:\n    x = 1\n",
        "x = f'{a + 1}'\n",
    ],
)
def test_nothing_is_made_of_what_tests_need_not_notice(code):
    assert list(mutants_of(code)) == []


@pytest.mark.parametrize("module", ["engine/clean/retention.py", "engine/undo/overlay.py"])
def test_every_mistake_in_a_module_is_another_and_can_be_compiled(module):
    source = (ROOT / "src/virtbackup_async" / module).read_text()
    sources = [mutant.source for mutant in mutants_of(source)]
    trees = [ast.dump(ast.parse(mutated)) for mutated in sources]
    assert len(sources) > 20
    assert ast.dump(ast.parse(source)) not in trees
