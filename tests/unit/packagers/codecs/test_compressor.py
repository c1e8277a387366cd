"""compressor.py: segments are compressed side by side, and lie in the file in order."""

from threading import Event

import pytest
from anyio import fail_after

from virtbackup_async.errors import StorageError
from virtbackup_async.packagers.codecs.compressor import Method, open_compressor
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.codecs.output import open_output

LONG = bytes(4 << 20)


def doubled(data):
    return bytes(data) * 2


def spares_of(cpu):
    return sum(cpu.take_segment() for _ in range(100))


@pytest.fixture
def compressed(tmp_path):
    """What is in the file after ``work`` with a compressor, and the members that were told of."""

    async def compress(method, work, threads=2):
        cpu, members = CpuShares(threads), []

        def told(plain_bytes, packed_bytes):
            members.append((plain_bytes, packed_bytes))

        path = tmp_path / "file"
        async with open_output(path) as output:
            async with open_compressor(output, method, cpu, told) as compressor:
                await work(compressor)
                await compressor.flush()
            await output.finish()
        assert cpu.is_at_rest
        assert spares_of(cpu) == spares_of(CpuShares(threads))
        return path.read_bytes(), members

    return compress


async def test_segments_and_what_is_put_between_them_are_in_order(compressed):
    async def work(compressor):
        await compressor.write([b"abc", b"defgh"])
        await compressor.put(b"--")
        await compressor.write([b"i" * 9])
        await compressor.put(b"++")

    content, members = await compressed(Method(doubled, 4), work)
    assert content == b"abcdabcdefghefgh--" + b"i" * 18 + b"++"
    assert members == [(4, 8), (4, 8), (4, 8), (4, 8), (1, 2)]


class Lent:
    """Pieces that are lent, and which of them are back."""

    def __init__(self):
        self.back = []

    def to(self, compressor, piece):
        data = memoryview(bytearray(piece))
        return compressor.lend(data, lambda: self.take_back(piece, data))

    def take_back(self, piece, data):
        self.back.append(piece)
        data[:] = bytes(len(data))  # whoever still reads it, reads something else


async def test_what_is_lent_is_a_segment_of_its_own_if_it_is_long_and_does_not_fit(compressed):
    lent = Lent()

    async def work(compressor):
        for piece in (b"abcd", b"efg", b"h", b"ij", b"kl", b"mnopqrst", b"u", b"vwxy"):
            await lent.to(compressor, piece)

    content, members = await compressed(Method(bytes, 4), work)
    assert content == b"abcdefghijklmnopqrstuvwxy"
    # "kl" fits behind "hij" only in part, so that is short; what is longer than a segment is cut.
    assert [plain for plain, _ in members] == [4, 3, 3, 2, 4, 4, 1, 4]
    assert sorted(lent.back) == [b"abcd", b"efg", b"h", b"ij", b"kl", b"mnopqrst", b"u", b"vwxy"]


async def test_what_is_lent_is_given_back_when_it_is_compressed_and_not_before(compressed):
    lent, go_on = Lent(), Event()

    def compress(data):
        assert go_on.wait(20)
        return bytes(data)

    async def work(compressor):
        await lent.to(compressor, b"abcd")
        await lent.to(compressor, b"e")
        assert lent.back == [b"e"]
        go_on.set()
        await compressor.flush()
        assert lent.back == [b"e", b"abcd"]

    content, _ = await compressed(Method(compress, 4), work)
    assert content == b"abcde"


async def test_a_slow_segment_does_not_keep_those_behind_it_waiting(compressed):
    fifth_has_come = Event()

    def compress(data):
        if data[0] == 5:
            fifth_has_come.set()
        assert data[0] != 1 or fifth_has_come.wait(20)
        return bytes(data)

    async def work(compressor):
        await compressor.write([bytes([number]) for number in range(1, 9)])

    with fail_after(30):
        content, _ = await compressed(Method(compress, 1), work)
    assert content == bytes(range(1, 9))


async def test_an_error_is_told_at_the_latest_by_the_flush(tmp_path):
    def fail(_data):
        raise StorageError("it broke")

    cpu = CpuShares(2)
    async with (
        open_output(tmp_path / "file") as output,
        open_compressor(output, Method(fail, 1), cpu) as compressor,
    ):
        await compressor.write([b"a"])
        with pytest.raises(StorageError, match="it broke"):
            await compressor.flush()
    assert spares_of(cpu) == spares_of(CpuShares(2))
