"""cli/own_process.py: what the C library does with a large block that is freed."""

import subprocess
import sys

import pytest

# mallinfo2(3): the fifth field is what lies in blocks of their own.
SCRIPT = """
import ctypes, sys
from virtbackup_async.cli.own_process import give_back_what_is_large

class Info(ctypes.Structure):
    _fields_ = [(f"_{number}", ctypes.c_size_t) for number in range(10)]

def own_blocks_bytes():
    return mallinfo2()._4

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
if sys.argv[1] == "given back":
    give_back_what_is_large()
before = own_blocks_bytes()
del_me = bytes(8 << 20)
del del_me
again = bytes(4 << 20)
print(own_blocks_bytes() - before >= 4 << 20)
"""


@pytest.mark.parametrize(("how", "has_a_block_of_its_own"), [("given back", True), ("kept", False)])
def test_large_blocks_stay_apart_from_what_a_thread_keeps(how, has_a_block_of_its_own):
    said = subprocess.check_output([sys.executable, "-c", SCRIPT, how], text=True)
    assert said.strip() == str(has_a_block_of_its_own)
