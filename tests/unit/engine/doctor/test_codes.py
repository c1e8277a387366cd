"""Each finding has a code that never changes, and doctor.md says what it means."""

import ast
import re
from pathlib import Path

from virtbackup_async import __file__ as package
from virtbackup_async.engine.heads.memory import OF_ANOTHER, UNREADABLE
from virtbackup_async.model.heads import CONTRADICTIONS

SOURCE = Path(package).parent
DOC = SOURCE.parents[1] / "docs/reference/doctor.md"
# They take the code of a finding as the second argument.
MAKERS = {"_Kind", "_problem", "_warning"}


def calls():
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield path.name, node


def literals():
    for name, call in calls():
        if name in {"leftovers.py", "target.py"} and call.func.id in MAKERS:
            yield call.args[1].value
        for keyword in call.keywords if call.func.id == "Finding" else ():
            if keyword.arg == "code":
                yield from (n.value for n in ast.walk(keyword.value) if isinstance(n, ast.Constant))


def test_each_finding_has_a_code():
    made = [(name, call) for name, call in calls() if call.func.id == "Finding"]
    assert len(made) > 80
    assert [
        (name, call.lineno) for name, call in made if "code" not in {k.arg for k in call.keywords}
    ] == []


def test_each_code_is_documented_and_no_other():
    of_config = {"key_misspelled", "key_outdated", "key_wrong"}
    codes = {*literals(), *of_config, *CONTRADICTIONS, UNREADABLE, OF_ANOTHER}
    section = DOC.read_text().partition("## Codes")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z]+(?:_[a-z]+)+|disk|room|version)`", section))
    assert documented == codes
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
