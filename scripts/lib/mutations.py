"""The small mistakes that scripts/mutate puts into a module, one at a time."""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


class Mutant(NamedTuple):
    """One mistake: where it is, what stood there, what stands there now, and the whole module."""

    line: int
    before: str
    after: str
    source: str


def mutants_of(source: str) -> Iterator[Mutant]:
    """Give each mistake that can be made in a module, in the order of its lines."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = source.encode()
    found = sorted(_changes(ast.parse(source)), key=lambda change: _place(change[0]))
    for node, after in found:
        first = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        text = f"({after})" if isinstance(node, ast.expr) else after
        changed = (data[:first] + text.encode() + data[end:]).decode()
        yield Mutant(node.lineno, _short(data[first:end].decode()), _short(after), changed)


def _place(node: ast.expr | ast.stmt) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _short(text: str) -> str:
    return " ".join(text.split())


def _changes(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    for node in _code(tree):
        if isinstance(node, ast.expr):
            for mutant in _expressions(node):
                yield node, ast.unparse(mutant)
        elif isinstance(node, ast.stmt) and _can_be_left_out(node):
            yield node, "pass"


def _can_be_left_out(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Await)
    return isinstance(node, ast.Raise | ast.Continue | ast.Break)


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Walk over what is run: no annotations, decorators, class options, texts or imports."""
    skipped: list[object] = []
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            skipped = [node.args, node.returns, *node.decorator_list]
        case ast.ClassDef():
            skipped = [*node.decorator_list, *node.keywords]
        case ast.AnnAssign():
            skipped = [node.annotation]
        case ast.JoinedStr():
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
    yield node
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from _code(child)


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    mutant = copy.deepcopy(node)
    match mutant:
        case ast.Compare(ops=[only]) if type(only) in _COMPARISONS:
            mutant.ops = [_COMPARISONS[type(only)]()]
        case ast.BoolOp(op=ast.And()):
            mutant.op = ast.Or()
        case ast.BoolOp(op=ast.Or()):
            mutant.op = ast.And()
        case ast.UnaryOp(op=ast.Not()):
            yield mutant.operand
            return
        case ast.BinOp() if type(mutant.op) in _OPERATORS:
            mutant.op = _OPERATORS[type(mutant.op)]()
        case ast.Constant(value=bool()):
            mutant.value = not mutant.value
        case ast.Constant(value=int()):
            mutant.value += 1
        case ast.IfExp():
            yield mutant.body
            mutant = mutant.orelse
        case _:
            return
    yield mutant
