"""A process that holds keys leaves no image of its memory behind when it crashes.

Two settings, because neither does all::

    PR_SET_DUMPABLE 0    the kernel writes no core dump, to a file or to a program such as
                         systemd-coredump; and no debugger of the same user attaches
    RLIMIT_CORE 0        the programs that are started later write none to a file: one of them
                         may hold data of a disk. They are dumpable again when they start

An effect of the first on a user that is not root: the files in ``/proc/PID`` of the process belong
to root, so other processes of the user cannot follow ``/proc/PID/fd`` or read its environment.
What the process reads of itself, ``/proc/self/fd`` and ``/proc/self/mountinfo``, stays readable;
what it would write, such as ``/proc/self/oom_score_adj``, does not stay writable. Root notices
nothing. Swap and hibernation still write memory to disks: swap of a host should be encrypted.
"""

import ctypes
import resource
from contextlib import suppress
from typing import Final

# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4


def refuse_core_dumps() -> None:
    """Let this process write no core dump from now on; called before it holds a key."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
