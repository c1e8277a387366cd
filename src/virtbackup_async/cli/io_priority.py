"""The kernel's I/O priority of this process, as the configuration wants it.

Taken before there is an event loop: the priority belongs to a thread, and is handed down to the
threads and programs that it starts from then on.
"""

from virtbackup_async.events import Emit, Warned


def take_io_priority(wanted: str, emit: Emit) -> None:
    """Let all others go first where ``idle`` is wanted; one that cannot be had must stop nobody."""
    if wanted != "idle":
        return
    import psutil  # noqa: PLC0415 -- only for those who want it: it takes its time to be imported

    try:
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    except (psutil.Error, OSError) as error:
        emit(Warned(f"the I/O priority stays as it is: {error}"))
