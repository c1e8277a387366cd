"""docs/contributing/newcomers.md: its way of one backup is the way that a backup really takes."""

import ast
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

import virtbackup_async
from fakes.hypervisor import DescribedDomain, FakeHypervisor
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import BackupDone

SOURCE = Path(virtbackup_async.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "newcomers.md"
ROW = re.compile(r"^\| \d+ \| `([\w/]+\.py)` \| (?:`([\w/]+\.py)`)? ?\|", re.MULTILINE)
STEPS = ROW.findall(PAGE.read_text())
WALK = [module for module, _ in STEPS]
# A reader can follow so many; who needs one more has to take one out.
LONGEST_WALK = 25
# What each of these does is said in the line of the module that calls it.
HELPERS = {"packagers/repository/map_files.py"}


class RunningDomain(DescribedDomain):
    async def snapshot(self, name, overlays, others, *, quiesce):
        for dev, overlay in overlays.items():
            create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b"]
            subprocess.run([*create, self.own[dev], overlay], check=True)
        await super().snapshot(name, overlays, others, quiesce=quiesce)


class Traced:
    """The modules whose functions were called, and which of them called which."""

    def __init__(self):
        self.modules, self.calls = set(), set()

    def note(self, frame, event, _argument):
        # A module that is imported is no step of the way.
        if event == "call" and frame.f_code.co_name != "<module>" and (module := place(frame)):
            self.modules.add(module)
            if (caller := calling(frame)) is not None:
                self.calls.add((caller, module))


def calling(frame):
    """The module of this project that called, also by way of a library such as contextlib."""
    while (frame := frame.f_back) is not None:
        if module := place(frame):
            return module
    return None


def place(frame):
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(SOURCE)) if path.is_relative_to(SOURCE) else None


@contextmanager
def traced():
    found = Traced()
    threading.setprofile(found.note)
    sys.setprofile(found.note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.fixture
async def backup(tmp_path):
    """A whole backup by snapshot into a repository, traced."""
    image, target, path = tmp_path / "vda.raw", tmp_path / "target", tmp_path / "config.yml"
    image.write_bytes(b"x" * 65536)
    target.mkdir()
    group = {
        "target": str(target), "packager": "repository", "method": "snapshot", "autostart": True,
        "hosts": ["fake"],
    }  # fmt: skip
    path.write_text(yaml.safe_dump({"groups": {"g": group}}))
    domain, events = RunningDomain({"vda": image}, active=True), []
    domain.uuid = str(uuid4())
    runtime = Runtime(load_config(path), events.append, FakeHypervisor(domain))
    with traced() as found:
        await run_backup(runtime, BackupRequest())
    assert any(isinstance(event, BackupDone) for event in events), events
    return found


def imports(module):
    """The modules that one imports, anywhere in it; also by name, and what a face stands for."""
    text = (SOURCE / module).read_text()
    tree = ast.parse(text)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    paths = {name.removeprefix("virtbackup_async.").replace(".", "/") for name in names}
    return {f"{path}.py" for path in paths if (SOURCE / f"{path}.py").is_file()}


def test_every_step_exists_and_follows_from_an_earlier_one():
    assert WALK
    assert [module for module in WALK if not (SOURCE / module).is_file()] == []
    for number, (module, caller) in enumerate(STEPS):
        assert caller in WALK[:number] or (number == 0 and not caller), module


async def test_every_step_is_imported_or_called_by_the_one_it_follows(backup):
    followed = [step for step in STEPS if step[1]]
    unknown = [
        (module, caller)
        for module, caller in followed
        if module not in imports(caller) and (caller, module) not in backup.calls
    ]
    assert unknown == []


async def test_a_backup_really_takes_every_step(backup):
    # The command line is left out here: the trace begins with the engine.
    below = [module for module in WALK if not module.startswith(("cli/", "api/"))]
    assert [module for module in below if module not in backup.modules] == []
    # What moves the bytes is all in the list, but for helpers of one thing each.
    moved = ("engine/point_in_time/", "packagers/repository/", "images/sources/")
    called = {module for module in backup.modules if module.startswith(moved)}
    assert called - set(WALK) - HELPERS == set()


def test_the_walk_is_short():
    assert len(WALK) < LONGEST_WALK
