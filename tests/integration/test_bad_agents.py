"""Agents that fail in every way that a guest can make up: the backup is made all the same.

A real guest, whose agent has opened the port, and a fake that answers libvirt in its place.
"""

import pytest

from fakes.guest_agent import (
    FREEZE,
    THAW,
    TIME,
    always,
    fake_agent,
    flood,
    good,
    hanging_up,
    instead,
    refused,
)
from lab.disks import DiskSpec
from lab.domains import running
from recording import Recorder, assert_at_home, back_up, configure, leftovers, restore
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.events import Warned
from virtbackup_async.model.storage_location import StorageLocation

REFUSED = b'{"error": {"class": "GenericError", "desc": "\\udc80 \\u001b[2J \xff\xfe"}}\n'
BAD = {
    "its hook fails": instead(refused("hook failed with status 1"), FREEZE),
    "it speaks of a lost connection": instead(refused("connection closed: broken pipe"), FREEZE),
    "it says that the domain is off": instead(refused("domain is not running"), FREEZE, TIME),
    "it knows no time": instead(refused("Command guest-get-time has been disabled"), TIME),
    "it does not thaw": instead(refused("guest agent: thaw failed"), THAW),
    "it answers nonsense to a freeze": instead(b"nonsense\n", FREEZE),
    "it answers another type": instead(b'{"return": {"a": [1, {}]}}\n', FREEZE),
    "it speaks no UTF-8": instead(REFUSED, FREEZE),
    "it tells a long story": instead(refused("blah " * 300_000), FREEZE),
    "it hangs up": hanging_up(FREEZE),
}
SLOW = {
    "it sends 40 MiB": instead(flood(40), FREEZE),
    "it talks nonsense": always(b"\xff{]}]}\n"),
    "it never answers": always(None),
    "it never freezes": instead(None, FREEZE),
    "it never thaws": instead(None, THAW),
}
FROZEN_ALL_THE_SAME = {"it does not thaw", "it never thaws"}


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--all-agents", default=False)
        metafunc.parametrize("kind", {**BAD, **SLOW} if everything else BAD)


@pytest.fixture(scope="module")
def talked(daemon_of_the_run):
    """A guest, and the agent that libvirt takes for its own."""
    daemon_of_the_run.ensure_started()
    path = daemon_of_the_run.path / "agent.sock"
    with fake_agent(path) as agent:
        options = {"agent_socket": path}
        with running(daemon_of_the_run, "talked", [DiskSpec("vda")], **options) as domain:
            yield domain, agent


@pytest.fixture
def talking(talked):
    """libvirt drops an agent that breaks the protocol: one that has started anew finds it again."""
    domain, agent = talked
    agent.become(good)
    domain.root.ensure_started()
    domain.root.kill()
    domain.root.start()
    domain.wait_booted()
    return talked


def quiesced(domain, directory, method):
    """A configuration whose socket has a place: libvirt makes no directory for this agent's."""
    scratch = domain.root.path / "scratch"
    scratch.mkdir(exist_ok=True)
    options = {"method": method, "scratch": str(scratch), "packager": "directory"}
    return configure(directory, domain.root.uri, [domain.name], quiesce=True, **options)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("method", ["snapshot", "pull"])
async def test_a_bad_agent_costs_no_backup(talking, method, kind, tmp_path):
    domain, agent = talking
    images = domain.images()
    config = quiesced(domain, tmp_path, method)
    agent.become({**BAD, **SLOW}[kind])

    recorder = await back_up(config, Recorder(tmp_path / "frozen"))

    assert recorder.done.quiesced == (kind in FROZEN_ALL_THE_SAME)
    (found,) = (await Catalog(StorageLocation.of(tmp_path / "target")).scan()).complete
    assert found.definition.quiesced == recorder.done.quiesced
    assert found.definition.not_quiesced == recorder.done.not_quiesced
    assert (found.definition.not_quiesced is None) == recorder.done.quiesced
    warnings = [event.message for event in recorder.of(Warned)]
    assert all(len(message) < 600 for message in warnings)
    assert any("not quiesced" in message for message in warnings) != recorder.done.quiesced
    # libvirt drops an agent that breaks the protocol: then nobody can ask it to thaw.
    if (FREEZE in agent.commands and THAW not in agent.commands) or kind in FROZEN_ALL_THE_SAME:
        assert any("may still be frozen" in message for message in warnings)
    else:
        assert len(warnings) == 1
    await restore(config, "talked", tmp_path / "restored")
    assert_at_home(domain, images)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("method", ["snapshot", "pull"])
async def test_a_good_one_is_frozen_and_thawed(talking, method, tmp_path):
    domain, agent = talking
    config = quiesced(domain, tmp_path, method)
    recorder = await back_up(config, Recorder(tmp_path / "frozen"))
    assert recorder.done.quiesced
    assert recorder.done.not_quiesced is None
    assert recorder.of(Warned) == []
    assert [word for word in agent.commands if word in {FREEZE, THAW}] == [FREEZE, THAW]


@pytest.mark.parametrize("method", ["snapshot", "pull"])
async def test_a_paused_guest_need_not_be_frozen(talking, method, tmp_path):
    domain, agent = talking
    config = quiesced(domain, tmp_path, method)
    domain.root.virsh("suspend", "talked")
    agent.become(good)
    try:
        recorder = await back_up(config, Recorder(tmp_path / "frozen"))
        assert domain.state() == "paused"
    finally:
        domain.root.virsh("resume", "talked")
    assert recorder.done.quiesced is False
    assert recorder.done.not_quiesced == "guest is paused"
    (warning,) = recorder.of(Warned)
    assert warning.message.endswith("only crash-consistent: guest is paused")
    assert FREEZE not in agent.commands
