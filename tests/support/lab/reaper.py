"""Runs libvirtd as its child, and stays until all that libvirtd started has ended too.

A program of its own: ``reaper.py PID_FILE WORD...``, started by ``libvirt_root.py``. A guest's QEMU
is orphaned when it starts, and libvirt waits for a killed one until its parent has taken note. That
is the host's init, and a container's may look round every two seconds only; this one does at once.
"""

import ctypes
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> None:
    """Become the parent of all orphans below, and start the program."""
    pid_file, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if not os.fork():
        with open(pid_file, "w") as file:  # noqa: PTH123 -- pathlib takes longer than all the rest
            file.write(str(os.getpid()))
        os.execvp(command[0], command)  # noqa: S606 -- a shell would be one program more
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
