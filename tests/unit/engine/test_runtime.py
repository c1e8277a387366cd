"""What all commands share is made once, and only when it is needed."""

import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from fakes.hypervisor import FakeHypervisor
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.runtime import Runtime, open_runtime
from virtbackup_async.events import ListedDomain, PinChanged, Warned
from virtbackup_async.hypervisor import hypervisor as hypervisor_module


@pytest.fixture
def config(tmp_path):
    groups = {"fast": Group("fast", None), "slow": Group("slow", None, rate_limit=1000)}
    return Config(tmp_path / "config.yml", groups=groups, rate_limit=5000, buffers_mib=8)


def test_a_twin_shares_what_the_original_has_not_made_yet(config):
    runtime = Runtime(config, [].append)
    twin, _ = runtime.recording()
    assert twin.buffers is runtime.buffers
    assert twin.cpu is runtime.cpu
    assert twin.disk_slots is runtime.disk_slots
    assert twin.host is runtime.host
    assert twin.limits_of("slow") == runtime.limits_of("slow")


def test_a_group_without_a_limit_keeps_to_that_of_the_run(config):
    runtime = Runtime(config, [].append)
    (run,) = runtime.limits_of("fast")
    assert runtime.limits_of("slow")[0] is run
    assert len(runtime.limits_of("slow")) == 2


def test_recording_passes_every_event_on_and_keeps_those_asked_for(config):
    told = []
    twin, recording = Runtime(config, told.append).recording(Warned, ListedDomain)
    events = [
        Warned("a"),
        PinChanged("g", "d", "b", "p", True),
        ListedDomain("g", "d"),
        Warned("b"),
    ]
    for event in events:
        twin.emit(event)
    assert told == events
    assert recording.of(Warned) == (Warned("a"), Warned("b"))
    assert recording.of(ListedDomain) == (ListedDomain("g", "d"),)


async def test_the_connection_is_opened_by_the_first_call_and_closed_at_the_end(
    config, monkeypatch
):
    log = []

    @asynccontextmanager
    async def connect(uri, **_credentials):
        log.append("opened")
        yield FakeHypervisor()
        log.append("closed")

    monkeypatch.setattr(hypervisor_module, "open_hypervisor", connect)
    async with open_runtime(config, [].append):
        pass
    assert log == []
    async with open_runtime(config, [].append) as runtime:
        assert await runtime.hypervisor.domain_names() == ()
        await runtime.hypervisor.versions()
        assert log == ["opened"]
    assert log == ["opened", "closed"]


def test_building_a_runtime_loads_nothing_that_takes_long():
    """``list`` needs neither libvirt nor numpy nor memory for disk data."""
    heavy = ["libvirt", "numpy", "zstandard", "lxml", "virtbackup_async.packagers.codecs"]
    code = (
        "import sys; import virtbackup_async.engine.runtime; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["survey.survey", "inventory.stats", "clean.clean"])
def test_a_command_loads_numpy_only_for_a_repository(module):
    code = f"import sys; import virtbackup_async.engine.{module}; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
