"""images/chains.py against the real qemu-img: headers that are true, and headers that lie."""

import subprocess
from functools import partial

import pytest

from lab.encrypted import encrypted_image
from virtbackup_async.errors import ImageError
from virtbackup_async.images.chains import image_chain
from virtbackup_async.model.domain import BackingImage, ToldChain


def run(tool, *arguments, cwd=None):
    subprocess.run([tool, *map(str, arguments)], check=True, capture_output=True, cwd=cwd)


@pytest.fixture
def create(tmp_path):
    """Make an image; ``-u`` lets its header name what does not exist."""
    return partial(run, "qemu-img", "create", "-q", "-u", "-f", "qcow2", cwd=tmp_path)


async def test_chain_is_nearest_first_and_relative_to_each_image(tmp_path, create):
    (tmp_path / "sub").mkdir()
    create("sub/base.qcow2", "1M")
    create("-b", "base.qcow2", "-F", "qcow2", "sub/middle.qcow2", "1M")
    create("-b", "sub/middle.qcow2", "-F", "qcow2", "top.qcow2", "1M")
    assert await image_chain(tmp_path / "top.qcow2", "qcow2") == (
        BackingImage(tmp_path / "top.qcow2", "qcow2"),
        BackingImage(tmp_path / "sub/middle.qcow2", "qcow2"),
        BackingImage(tmp_path / "sub/base.qcow2", "qcow2"),
    )


async def test_raw_image_that_looks_like_qcow2_has_no_chain(tmp_path, create):
    create("-b", "/etc/shadow", "-F", "raw", "evil", "1M")
    assert await image_chain(tmp_path / "evil", "raw") == (BackingImage(tmp_path / "evil", "raw"),)


async def test_backing_without_a_format_is_raw_and_ends_the_chain(tmp_path, create):
    create("-b", "/etc/shadow", "-F", "raw", "evil", "1M")
    create("-b", "evil", "-F", "raw", "top", "1M")
    run("qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", tmp_path / "top")
    forget_backing_format(tmp_path / "top")
    chain = await image_chain(tmp_path / "top", "qcow2")
    assert chain[1:] == (BackingImage(tmp_path / "evil", "raw"),)


def forget_backing_format(path):
    """Turn the header extension of the backing format into one that nobody knows."""
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("e2792aca"))
    data[at : at + 4] = b"none"
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["nbd:localhost:10809", 'json:{"driver":"null-co"}', "a:b"])
async def test_backing_that_is_no_path_is_refused(tmp_path, create, name):
    create("-b", "placeholder-long-enough-to-be-replaced", "-F", "raw", "top", "1M")
    replace_backing_name(tmp_path / "top", name.encode())
    with pytest.raises(ImageError, match="is not a file"):
        await image_chain(tmp_path / "top", "qcow2")


def replace_backing_name(path, name):
    data = bytearray(path.read_bytes())
    offset = int.from_bytes(data[8:16], "big")
    data[16:20] = len(name).to_bytes(4, "big")
    data[offset : offset + len(name)] = name
    path.write_bytes(data)


async def test_data_file_that_is_no_path_is_refused(tmp_path):
    image, name = tmp_path / "top", "d" * 30
    run("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={tmp_path}/{name}", image, "1M")
    data = image.read_bytes()
    assert data.count(f"{tmp_path}/{name}".encode()) == 1
    evil = b"nbd:".ljust(len(f"{tmp_path}/{name}"), b"x")
    image.write_bytes(data.replace(f"{tmp_path}/{name}".encode(), evil))
    with pytest.raises(ImageError, match=r"data file of .* is not a file"):
        await image_chain(image, "qcow2")


async def test_data_file_is_relative_to_its_image(tmp_path):
    image = tmp_path / "sub/a"
    image.parent.mkdir()
    run(
        "qemu-img", "create", "-f", "qcow2", "-o", "data_file=d", image.name, "1M", cwd=image.parent
    )
    (found,) = await image_chain(image, "qcow2")
    assert found.data_file == tmp_path / "sub/d"
    assert found.files == (image, tmp_path / "sub/d")


@pytest.mark.parametrize("image_format", ["qcow2", "luks"])
async def test_encrypted_image_is_known_without_its_key(tmp_path, image_format):
    encrypted_image(tmp_path / "a", image_format)
    (found,) = await image_chain(tmp_path / "a", image_format)
    assert found.encrypted


async def test_what_the_xml_says_counts_before_the_header(tmp_path, create):
    create("other.qcow2", "1M")
    create("-b", "none", "-F", "qcow2", "top", "1M")
    other = BackingImage(tmp_path / "other.qcow2", "qcow2")
    chain = await image_chain(tmp_path / "top", "qcow2", ToldChain((other,), is_whole=True))
    assert chain == (BackingImage(tmp_path / "top", "qcow2"), other)
    (alone,) = await image_chain(tmp_path / "top", "qcow2", ToldChain(is_whole=True))
    assert alone.path == tmp_path / "top"


async def test_where_the_xml_ends_the_header_goes_on(tmp_path, create):
    create("base", "1M")
    create("-b", "base", "-F", "qcow2", "middle", "1M")
    create("-b", "middle", "-F", "qcow2", "top", "1M")
    told = ToldChain((BackingImage(tmp_path / "middle", "qcow2"),))
    chain = await image_chain(tmp_path / "top", "qcow2", told)
    assert [image.path.name for image in chain] == ["top", "middle", "base"]


async def test_what_the_xml_says_below_that_cannot_be_read_is_the_reason(tmp_path, create):
    create("top", "1M")
    with pytest.raises(ImageError, match="on network storage"):
        await image_chain(tmp_path / "top", "qcow2", ToldChain(reason="on network storage"))


async def test_chain_that_goes_round_is_refused(tmp_path, create):
    create("-b", "b", "-F", "qcow2", "a", "1M")
    create("-b", "a", "-F", "qcow2", "b", "1M")
    with pytest.raises(ImageError, match="has no end"):
        await image_chain(tmp_path / "a", "qcow2")


async def test_missing_backing_file_is_said(tmp_path, create):
    create("-b", "none", "-F", "qcow2", "a", "1M")
    with pytest.raises(ImageError, match="none"):
        await image_chain(tmp_path / "a", "qcow2")
