"""Images written from front to back are the images, for pipes and for files, raw and qcow2."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from threading import Thread

import pytest
from anyio import move_on_after, to_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbackup_async.errors import StorageError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sequential import (
    SequentialFile,
    create_sequential_file,
    write_qcow2,
    write_raw,
)
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.qemu.qcow2 import (
    HEAD_BYTES,
    Qcow2Layout,
    Qcow2Options,
    file_beside,
    read_head,
)

MIB = 1 << 20
WRITERS = {"raw": write_raw, "qcow2": write_qcow2}
# (length, (offset, length) of what is data)
IMAGES = {
    "empty": (0, []),
    "odd": (513, [(0, 513)]),
    "all-hole": (70 * MIB, []),
    "dense": (3 * MIB + 4096, [(0, 3 * MIB + 4096)]),
    "over-tables": (1030 * MIB, [(0, 5), (512 * MIB - 70000, 140000), (1029 * MIB, MIB)]),
    "comb": (8 * MIB, [(start, 4096) for start in range(0, 8 * MIB, 3 * 4096)]),
    "zeros-that-are-data": (4 * MIB, [(0, 100)]),
}


def make(path, size_bytes, pieces):
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for offset, length in pieces:
            file.seek(offset)
            file.write(os.urandom(length))
    return path


@pytest.fixture(params=IMAGES)
def image(request, tmp_path):
    path = make(tmp_path / "image", *IMAGES[request.param])
    if request.param == "zeros-that-are-data":
        with path.open("r+b") as file:
            file.seek(MIB)
            file.write(bytes(2 * MIB))
    return path


async def write(image, file, image_format):
    async with open_image_stream(image, BufferPool()) as stream:
        await WRITERS[image_format](stream, file, lambda _: None)
        return stream


async def through_a_pipe(image, image_format):
    """What a reader of the pipe gets."""
    end, start = os.pipe()
    read = []

    def read_all():
        with os.fdopen(end, "rb") as file:
            read.append(file.read())

    os.set_blocking(start, False)
    reader = Thread(target=read_all)
    reader.start()
    try:
        await write(image, SequentialFile(start, Path("pipe")), image_format)
    finally:
        os.close(start)
        await to_thread.run_sync(reader.join)
    return read[0]


def assert_is_image(path, image, image_format):
    if image_format == "raw":
        assert path.stat().st_size == image.stat().st_size
    else:
        subprocess.run(["qemu-img", "check", "-f", "qcow2", path], check=True, capture_output=True)
    compare = ["qemu-img", "compare", "-f", "raw", "-F", image_format, image, path]
    subprocess.run(compare, check=True, capture_output=True)


@pytest.mark.parametrize("image_format", WRITERS)
async def test_a_file_gets_the_image_and_its_holes(image, tmp_path, image_format):
    output = tmp_path / "output"
    with create_sequential_file(output) as file:
        stream = await write(image, file, image_format)
    assert stream.digest
    assert_is_image(output, image, image_format)
    assert output.stat().st_blocks * 512 <= image.stat().st_blocks * 512 + 25 * 65536
    assert output.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("image", ["odd", "dense", "comb", "zeros-that-are-data"], indirect=True)
@pytest.mark.parametrize("image_format", WRITERS)
async def test_a_pipe_gets_the_same(image, tmp_path, image_format):
    output = tmp_path / "output"
    output.write_bytes(await through_a_pipe(image, image_format))
    assert_is_image(output, image, image_format)


# In sectors, so that qemu-img tells them as they are.
EXTENTS = st.lists(st.tuples(st.integers(0, 1 << 22), st.integers(1, 1 << 18)), max_size=6)


@settings(max_examples=20, deadline=None)
@given(EXTENTS, st.integers(0, 1 << 31))
def test_qemu_finds_data_where_it_is_and_nothing_amiss(extents, size_bytes):
    data, end = [], 0
    for start, length in sorted((512 * start, 512 * length) for start, length in extents):
        first, stop = max(start, end), min(start + length, size_bytes)
        if first < stop:
            data.append(Extent(first, stop - first))
            end = stop
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        path = Path(directory) / "image"
        with create_sequential_file(path) as file:
            write_without_data(Qcow2Layout(size_bytes, data), file)
        subprocess.run(["qemu-img", "check", "-f", "qcow2", path], check=True, capture_output=True)
        asked = ["qemu-img", "map", "--output=json", "-f", "qcow2", path]
        told = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)
    found = [entry for entry in told if entry["present"]]
    assert sum(entry["length"] for entry in found) <= sum(e.length + 2 * 65536 for e in data)
    for extent in data:
        assert any(
            entry["start"] <= extent.start and extent.end <= entry["start"] + entry["length"]
            for entry in joined(found)
        )


def write_without_data(layout, file):
    for piece in layout.pieces():
        if isinstance(piece, Extent):
            file.zeros(piece.length)
        else:
            file.write(memoryview(piece))
    file.finish()


def joined(entries):
    """Entries that touch each other, as one."""
    whole = []
    for entry in entries:
        if whole and whole[-1]["start"] + whole[-1]["length"] == entry["start"]:
            whole[-1]["length"] += entry["length"]
        else:
            whole.append(dict(entry))
    return whole


@pytest.fixture
def dense(tmp_path):
    return make(tmp_path / "dense", *IMAGES["dense"])


@pytest.fixture
def pipe():
    """Both ends of a pipe."""
    end, start = os.pipe()
    with os.fdopen(end, "rb", buffering=0) as reader, os.fdopen(start, "wb", buffering=0) as writer:
        yield reader, writer


@pytest.mark.parametrize("blocks", [True, False])
async def test_nobody_reads(dense, pipe, blocks):
    reader, writer = pipe
    os.set_blocking(writer.fileno(), blocks)
    reader.close()
    with pytest.raises(StorageError, match="nobody reads it any more"):
        await write(dense, SequentialFile(writer.fileno(), Path("it")), "raw")


@pytest.mark.parametrize("blocks", [True, False])
async def test_who_wants_to_stop_need_not_wait_for_the_reader(dense, pipe, blocks):
    _, writer = pipe
    os.set_blocking(writer.fileno(), blocks)
    with move_on_after(0.3) as scope:
        await write(dense, SequentialFile(writer.fileno(), Path("it")), "raw")
    assert scope.cancelled_caught


async def test_what_is_behind_the_place_in_a_file_is_kept_and_holes_are_zeros_there(tmp_path):
    image = make(tmp_path / "image", *IMAGES["comb"])
    output = tmp_path / "output"
    output.write_bytes(b"x" * (9 * MIB))
    with output.open("r+b", buffering=0) as file:
        file.seek(MIB // 2)
        await write(image, SequentialFile(file.fileno(), output), "raw")
        assert file.tell() == MIB // 2 + 8 * MIB
    expected = b"x" * (MIB // 2) + image.read_bytes() + b"x" * (MIB // 2)
    assert output.read_bytes() == expected


async def test_a_file_that_is_appended_to_gets_its_zeros(tmp_path):
    image = make(tmp_path / "image", *IMAGES["comb"])
    output = tmp_path / "output"
    output.write_bytes(b"before")
    with output.open("ab", buffering=0) as file:
        await write(image, SequentialFile(file.fileno(), output), "raw")
    assert output.read_bytes() == b"before" + image.read_bytes()


async def test_a_file_that_was_begun_goes_with_the_error(tmp_path):
    with pytest.raises(ZeroDivisionError), create_sequential_file(tmp_path / "output"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").touch()
    with (
        pytest.raises(StorageError, match="cannot create"),
        create_sequential_file(tmp_path / "mine"),
    ):
        pass


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_headers_that_name_no_file_beside(tmp_path, image_format):
    path = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", image_format, path, "1M"], check=True)
    assert file_beside(path.read_bytes(), may_have_backing=False) is None


def test_headers_that_name_a_file_beside(tmp_path):
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    upper, outside = tmp_path / "upper", tmp_path / "outside"
    backing = ["-u", "-F", "raw", "-b", "/etc/shadow", upper, "1M"]
    subprocess.run([*create, *backing], check=True)
    assert file_beside(upper.read_bytes(), may_have_backing=False) == "/etc/shadow"
    assert file_beside(upper.read_bytes(), may_have_backing=True) is None
    data = ["-o", f"data_file={tmp_path}/data", outside, "1M"]
    subprocess.run([*create, *data], check=True)
    named = file_beside(outside.read_bytes(), may_have_backing=True)
    assert named == f"{tmp_path}/data"
    assert file_beside(outside.read_bytes()[:112], may_have_backing=True) == "a file for its data"


@pytest.mark.parametrize(
    "options",
    [
        Qcow2Options(cluster_bits=9),
        Qcow2Options(cluster_bits=12, lazy_refcounts=True),
        Qcow2Options(cluster_bits=21),
        Qcow2Options(version=2),
        Qcow2Options(version=2, cluster_bits=10),
        Qcow2Options(extended_l2=True),
        Qcow2Options(cluster_bits=14, extended_l2=True, lazy_refcounts=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["odd", "all-hole", "dense", "comb"])
async def test_an_image_laid_out_like_another_one_is_the_disk(tmp_path, name, options):
    image, written = make(tmp_path / "image", *IMAGES[name]), tmp_path / "written"
    async with open_image_stream(image, BufferPool()) as stream:
        with create_sequential_file(written) as file:
            await write_qcow2(stream, file, lambda _: None, options)
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", written], check=True)
    compare = ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", image, written]
    assert subprocess.run(compare, check=False).returncode == 0
    head = read_head(written.read_bytes()[:HEAD_BYTES])
    assert head is not None
    assert head.options == options


async def test_an_image_whose_holes_nobody_knows_is_the_disk(tmp_path):
    image, written = make(tmp_path / "image", *IMAGES["comb"]), tmp_path / "written"
    async with open_image_stream(image, BufferPool()) as stream:
        stream.data_extents = None
        with create_sequential_file(written) as file:
            await write_qcow2(stream, file, lambda _: None)
    compare = ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", image, written]
    assert subprocess.run(compare, check=False).returncode == 0
