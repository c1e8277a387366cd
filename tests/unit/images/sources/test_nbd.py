"""images/sources/nbd.py: reads that are given up, in whatever moment, end."""

import threading

import anyio
import pytest
from anyio import CancelScope, to_thread

from virtbackup_async.errors import NbdConnectionError
from virtbackup_async.images.sources.nbd import NbdReader

SIZE_BYTES = 4 << 20


class Client:
    """A server's export; ``answers`` holds what is awaited before each answer."""

    class export:  # noqa: N801 -- an attribute
        size_bytes = SIZE_BYTES

    def __init__(self):
        self.slots = anyio.Semaphore(8)
        self.asked = anyio.Event()
        self.answers = anyio.Event()
        self.answers.set()

    async def read_into(self, offset, target):
        async with self.slots:
            self.asked.set()
            await self.answers.wait()
            target[:] = bytes([7]) * len(target)


def read_all(reader, target, may_begin):
    may_begin.wait()
    reader.read([(0, memoryview(target))])


async def test_a_read_that_begins_after_its_cancellation_ends():
    """anyio delivers no cancellation to it, and would let it look for one for ever."""
    target, may_begin = bytearray(SIZE_BYTES), threading.Event()
    reader = NbdReader(Client(), None)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as reading:
            reading.start_soon(to_thread.run_sync, read_all, reader, target, may_begin)
            await anyio.wait_all_tasks_blocked()
            reading.cancel_scope.cancel()
            with CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
            may_begin.set()
    assert target == bytes([7]) * SIZE_BYTES


@pytest.mark.parametrize("before", [True, False])
async def test_a_read_without_an_answer_is_given_up(before):
    client, may_begin = Client(), threading.Event()
    client.answers = anyio.Event()
    reader = NbdReader(client, None)
    failures = []

    def read():
        try:
            read_all(reader, bytearray(SIZE_BYTES), may_begin)
        except NbdConnectionError as error:
            failures.append(error)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as reading:
            reading.start_soon(to_thread.run_sync, read)
            if before:
                reader.give_up()
                may_begin.set()
            else:
                may_begin.set()
                await client.asked.wait()
                reader.give_up()
    assert "given up" in str(failures[0])
    assert client.slots.value == 8


async def test_places_far_apart_are_asked_for_together():
    client = Client()
    client.answers = anyio.Event()
    reader = NbdReader(client, None)
    targets = [bytearray(4096) for _ in range(5)]
    wanted = [(place << 30, memoryview(target)) for place, target in enumerate(targets)]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as reading:
            reading.start_soon(to_thread.run_sync, reader.read, wanted)
            while client.slots.value > 3:
                await anyio.lowlevel.checkpoint()
            client.answers.set()
    assert targets == [bytes([7]) * 4096] * 5
