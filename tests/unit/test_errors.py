"""Every error has an exit code, and every help says what the code means."""

import ast
import inspect
from pathlib import Path

import pytest

from virtbackup_async import errors
from virtbackup_async.cli.lazy_commands import EXIT_STATUSES


def kinds():
    found = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [kind for kind in found if issubclass(kind, errors.VirtBackupError)]


def test_every_help_names_the_exit_code_of_every_error():
    assert len(kinds()) > 20
    for kind in kinds():
        assert f"{kind.exit_code} {kind.exit_meaning}," in EXIT_STATUSES, kind


def test_different_exit_codes_mean_different_things():
    assert len({(kind.exit_code, kind.exit_meaning) for kind in kinds()}) == len(
        {kind.exit_code for kind in kinds()}
    )


def test_a_message_is_made_of_its_places_and_the_reason():
    error = errors.DefinitionError(
        "no JSON", domain="web", disk="vda", path=Path("/t/web.json"), hint="Look at it."
    )
    assert error.message == "web: /t/web.json: no JSON"
    assert str(error) == "web: /t/web.json: no JSON. Look at it."
    assert str(errors.NotFoundError("did you mean it?", hint="Look.")) == "did you mean it? Look."
    assert error.within("web") == "/t/web.json: no JSON"
    assert error.within("db") == error.message
    assert error.sentences_within("web", Path("/t/web.json")) == "no JSON. Look at it."
    assert (error.reason, error.domain, error.disk) == ("no JSON", "web", "vda")
    assert error.cause is None


def test_an_error_of_another_kind_keeps_its_places_and_says_what_to_do_itself():
    error = errors.HypervisorError("gone", domain="web", disk="vda", hint="Wait.")
    changed = error.as_kind(errors.DomainGoneError)
    assert type(changed) is errors.DomainGoneError
    assert (changed.message, changed.disk, changed.hint) == ("web: gone", "vda", None)
    assert error.as_kind(errors.RollbackError, hint="Look.").hint == "Look."


CUTS = {
    "removeprefix", "removesuffix", "split", "rsplit", "partition", "rpartition", "startswith",
    "endswith", "replace", "find", "index", "strip", "lstrip", "rstrip", "splitlines",
}  # fmt: skip


TEXTS = {"message", "reason", "hint", "error"}


def names_an_error(node):
    """Whether an expression is the text of an error or of what was told of one."""
    if isinstance(node, ast.Call):
        is_str = isinstance(node.func, ast.Name) and node.func.id == "str" and len(node.args) == 1
        return is_str and isinstance(node.args[0], ast.Name) and "error" in node.args[0].id
    if not isinstance(node, ast.Attribute) or node.attr not in {
        "message",
        "reason",
        "hint",
        "error",
    }:
        return False
    owner = ast.unparse(node.value)
    return any(word in owner for word in ("error", "failed", "failure", "problem", "refused"))


def cut_up(tree):
    """The places where a program decides by an error's text, or takes a part of it."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="split"), args=[]):
                found = False  # only white space becomes another
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in CUTS:
                found = names_an_error(value)
            case ast.Subscript(value=value):
                found = names_an_error(value)
            case ast.Compare(comparators=others, ops=[ast.In() | ast.NotIn()]):
                found = any(map(names_an_error, others))
            case ast.Compare(left=left, comparators=others, ops=[ast.Eq() | ast.NotEq()]):
                found = any(map(names_an_error, [left, *others]))
            case _:
                continue
        if found:
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    "text",
    [
        "x = error.message.removeprefix('web: ')",
        "x = disk.error.message.partition(': ')",
        "x = problem.message[5:]",
        "x = str(error).split(': ')",
        "if 'not ready' in error.message: pass",
        "if error.hint == 'Use a newer program.': pass",
        "x = failed.error.removeprefix(f'{failed.domain}: ')",
    ],
)
def test_a_message_that_is_cut_up_is_found(text):
    assert len(list(cut_up(ast.parse(text)))) == 1


def test_no_module_cuts_an_error_up():
    """Fields decide, and make the text at the end: a message may be improved at any time."""
    modules = sorted(Path(errors.__file__).parent.rglob("*.py"))
    assert len(modules) > 200
    found = {
        str(module): list(cut_up(ast.parse(module.read_text())))
        for module in modules
        if module != Path(errors.__file__)
    }
    assert {module: cuts for module, cuts in found.items() if cuts} == {}


def test_an_error_is_about_the_disk_of_the_block_that_it_leaves():
    with pytest.raises(errors.ImageError) as raised, errors.about_disk("vda"):
        raise errors.ImageError("unreadable")
    assert raised.value.disk == "vda"
    assert raised.value.message == "unreadable"


def test_an_error_that_names_its_disk_keeps_it():
    with (
        pytest.raises(errors.ImageError) as raised,
        errors.about_disk("vda"),
        errors.about_disk("vdb"),
    ):
        raise errors.ImageError("unreadable")
    assert raised.value.disk == "vdb"


def test_each_error_of_a_task_group_is_about_the_disk():
    inner = [errors.ImageError("one"), errors.StorageError("two", disk="vdb"), ValueError()]
    group = ExceptionGroup("a", [inner[0], ExceptionGroup("b", inner[1:])])
    with pytest.raises(ExceptionGroup), errors.about_disk("vda"):
        raise group
    assert [error.disk for error in inner[:2]] == ["vda", "vdb"]


def nameless_disks(tree):
    """The errors whose text names a disk that no field of theirs has."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")):
            continue
        if any(keyword.arg == "disk" for keyword in node.keywords):
            continue
        shown = [
            ast.unparse(part.value)
            for arg in node.args
            for part in ast.walk(arg)
            if isinstance(part, ast.FormattedValue)
        ]
        if any(name == "dev" or name.endswith(".dev") for name in shown):
            yield node.lineno, ast.unparse(node)


def test_every_error_that_names_a_disk_has_it_as_a_field():
    assert list(nameless_disks(ast.parse("raise ImageError(f'no {disk.dev}')")))
    assert not list(nameless_disks(ast.parse("raise ImageError(f'no {dev}', disk=dev)")))
    found = {
        str(module): list(nameless_disks(ast.parse(module.read_text())))
        for module in sorted(Path(errors.__file__).parent.rglob("*.py"))
    }
    assert {module: nodes for module, nodes in found.items() if nodes} == {}


def exact_types(tree):
    """The comparisons of an error's exact type: a subclass would be decided on differently."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=ast.Call(func=ast.Name(id="type"), args=[ast.Name(id="error")])):
                yield node.lineno, ast.unparse(node)


def test_no_decision_depends_on_the_exact_type_of_an_error():
    assert list(exact_types(ast.parse("if type(error) is HypervisorError: pass")))
    found = {
        str(module): list(exact_types(ast.parse(module.read_text())))
        for module in sorted(Path(errors.__file__).parent.rglob("*.py"))
    }
    assert {module: nodes for module, nodes in found.items() if nodes} == {}
