"""One file damaged on each kind of storage: every command says and does what it does elsewhere.

``EXPECTED`` is the table: what is damaged, and what the commands make of two backups, ``old`` and
``new``, both of which need the pack and the segment. A few cells in each run on each kind of
storage, all with ``--all-points``.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.damaged_store import FILES, HOWS, DamagedStore, StoreSite
from faults.grounds import Ground
from object_server import set_credentials
from virtbackup_async.engine.host_state import STATE_VARIABLE

KINDS = ("local", "s3", "ssh", "encrypted", "encrypted s3", "encrypted ssh")
BOTH, NEW, NONE = "old and new", "new", "none"
EVERY = ("flip", "cut", "empty", "remove")
QUICK = {
    ("repository", "remove"), ("segment", "flip"), ("pack", "cut"), ("map", "flip"),
    ("definition", "empty"), ("slot", "flip"),
}  # fmt: skip


def row(listed, verified, restored, repaired, *, without_key="good", then=None):
    """What the commands say, in their order; after ``repair``, ``then`` is whole."""
    then = repaired if then is None else then
    return {
        "list": listed,
        "verify": verified,
        "restore": restored,
        "without key": without_key,
        "repair": repaired if repaired.endswith("Error") else f"good: {repaired}",
        "verify then": then if then.endswith("Error") else f"good: {then}",
        "restore then": NONE if then.endswith("Error") else then,
    }


def of_damaged(good):
    return f"good: {good}, repository damaged"


EXPECTED = {
    # What holds in clear and encrypted targets.
    **dict.fromkeys(
        [("segment", "flip"), ("segment", "cut"), ("segment", "empty")],
        row("2", of_damaged(NONE), NONE, BOTH),
    ),
    ("segment", "remove"): row("2", f"good: {NONE}", NONE, BOTH),
    **dict.fromkeys(
        [("pack", "flip"), ("pack", "cut"), ("pack", "empty")],
        row("2", of_damaged(NONE), NONE, NONE, without_key="1 bad"),
    ),
    # Without its key, nobody knows that there was one more.
    ("pack", "remove"): row("2", of_damaged(NONE), NONE, NONE),
    **dict.fromkeys(
        [("map", "flip"), ("map", "cut"), ("map", "empty")],
        row("2", f"good: {NEW}", NEW, NEW),
    ),
    ("map", "remove"): row("1, 1 broken", f"good: {NEW}", NEW, NEW),
    **dict.fromkeys(
        [("definition", "flip"), ("definition", "cut"), ("definition", "empty")],
        row("1, 1 broken", f"good: {NEW}", NEW, NEW),
    ),
    ("definition", "remove"): row("1", f"good: {NEW}", NEW, NEW),
}
IN_CLEAR = EXPECTED | {("repository", how): row("2", f"good: {NONE}", NONE, BOTH) for how in EVERY}
LOST_KEYS = row(
    "ConfigError", "ConfigError", NONE, "ConfigError", without_key="1 bad", then="ConfigError"
)
ENCRYPTED = EXPECTED | {
    **{
        ("repository", how): row(
            "CorruptError", "CorruptError", NONE, BOTH, without_key="CorruptError"
        )
        for how in EVERY
    },
    **{("slot", how): LOST_KEYS for how in EVERY},
    ("slot", "remove"): LOST_KEYS | {"without key": "good"},
}


def cells(config):
    every = [(file, how) for file in FILES for how in HOWS]
    return every if config.getoption("--all-points", default=False) else sorted(QUICK)


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        found = cells(metafunc.config)
        metafunc.parametrize(
            ("kind", "cell"),
            [
                (kind, cell)
                for kind in KINDS
                for cell in found
                if cell[0] != "slot" or "encrypted" in kind
            ],
            ids=lambda value: value if isinstance(value, str) else " ".join(value),
        )


@pytest.fixture(scope="module")
async def begun(request):
    """What returns the ground of a kind, and a place on it with both backups, each made once."""
    made = {}
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
        pytest.MonkeyPatch.context() as patches,
    ):
        patches.setenv(STATE_VARIABLE, f"{memory}/state")

        async def begin(kind):
            if kind not in made:
                server = None
                if "s3" in kind:
                    server = request.getfixturevalue("object_server_of_the_run")
                    set_credentials(patches)
                directory = Path(memory) / kind
                directory.mkdir()
                ground = Ground(kind, directory, None, server, patches)
                stack.enter_context(ground.serving())
                place = ground.begin()
                made[kind] = (ground, place, await StoreSite(place).store_two())
            return made[kind]

        yield begin


@pytest.mark.timeout(300)
async def test_each_command_says_the_same_on_each_storage(begun, kind, cell):
    ground, place, names = await begun(kind)
    copy = ground.copy(place)
    store = DamagedStore(copy, names)
    store.damage(*cell)
    expected = (ENCRYPTED if "encrypted" in kind else IN_CLEAR)[cell]
    found = await store.says()
    ground.remove(copy)
    assert found == {command: expected[command] for command in found}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["s3", "encrypted s3"])
async def test_a_good_copy_on_this_host_hides_no_damage_in_the_store(begun, kind):
    """Its own restores can do with the copy; other hosts have none."""
    ground, place, names = await begun(kind)
    copy = ground.copy(place)
    store = DamagedStore(copy, names)
    assert (await store.says())["verify"] == f"good: {BOTH}"
    store.damage("segment", "flip")
    found = await store.says()
    ground.remove(copy)
    assert found["verify"] == of_damaged(NONE)
    assert found["restore"] == BOTH
    assert found["repair"] == found["verify then"] == f"good: {BOTH}"
