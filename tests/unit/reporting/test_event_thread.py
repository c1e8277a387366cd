import threading

from fakes.recorded_run import at, disk_done, progress, started, summary
from virtbackup_async.reporting.event_thread import EventThread
from virtbackup_async.reporting.interface import LogLine

CLOSE_S = 10


class Recorder:
    """Keeps what it is shown; may be held up, and may break."""

    def __init__(self, breaks_with=None):
        self.shown = []
        self.closed = 0
        self.may_go_on = threading.Event()
        self.is_held = threading.Event()
        self.breaks_with = breaks_with

    def show(self, event, _at):
        if self.breaks_with:
            raise self.breaks_with
        self.is_held.set()
        assert self.may_go_on.wait(CLOSE_S)
        self.shown.append(event)

    def log(self, line, _at):
        self.shown.append(line)

    def tick(self, at):
        pass

    def pause(self):
        self.shown.append("paused")

    def close(self):
        self.closed += 1


def held_pump(recorder):
    """An event thread whose renderer is stuck in its first event."""
    event_thread = EventThread(recorder, lambda: at(0))
    event_thread.__enter__()
    event_thread.emit(started())
    assert recorder.is_held.wait(CLOSE_S)
    return event_thread


def test_events_arrive_in_order_and_the_renderer_is_closed_once():
    recorder = Recorder()
    recorder.may_go_on.set()
    with EventThread(recorder, lambda: at(0)) as event_thread:
        for event in (started(), disk_done(), summary()):
            event_thread.emit(event)
    assert recorder.shown == [started(), disk_done(), summary()]
    assert recorder.closed == 1
    assert event_thread.failure is None


def test_what_waits_is_shown_before_the_pause_and_nothing_until_its_end():
    recorder = Recorder()
    recorder.may_go_on.set()
    with EventThread(recorder, lambda: at(0)) as event_thread:
        event_thread.emit(started())
        assert event_thread.pause(CLOSE_S)
        event_thread.emit(disk_done())
        assert recorder.shown == [started(), "paused"]
        event_thread.resume()
        event_thread.emit(summary())
    assert recorder.shown == [started(), "paused", disk_done(), summary()]


def test_a_pause_ends_with_the_pump():
    recorder = Recorder()
    recorder.may_go_on.set()
    with EventThread(recorder, lambda: at(0)) as event_thread:
        assert event_thread.pause(CLOSE_S)
        event_thread.emit(summary())
    assert recorder.shown == ["paused", summary()]
    assert recorder.closed == 1


def test_a_stuck_renderer_does_not_hold_up_a_pause():
    recorder = Recorder()
    event_thread = held_pump(recorder)
    assert not event_thread.pause(0.01)
    event_thread.resume()
    recorder.may_go_on.set()
    assert event_thread.close(CLOSE_S)


def test_a_stuck_renderer_holds_holds_up_nobody_and_only_costs_progress():
    recorder = Recorder()
    event_thread = held_pump(recorder)
    for gib in range(100):
        event_thread.emit(progress("web", "vda", gib, 100))
        event_thread.emit(progress("web", "vdb", gib, 100))
    event_thread.emit(disk_done())
    assert not event_thread.close(timeout_s=0.01)
    recorder.may_go_on.set()
    assert event_thread.close(CLOSE_S)
    assert recorder.shown[1:] == [
        progress("web", "vda", 99, 100),
        progress("web", "vdb", 99, 100),
        disk_done(),
    ]


def test_log_lines_have_a_bound_and_events_push_through():
    recorder = Recorder()
    event_thread = held_pump(recorder)
    for number in range(5000):
        event_thread.log(LogLine(10, str(number)))
    event_thread.emit(summary())
    recorder.may_go_on.set()
    assert event_thread.close(CLOSE_S)
    lines = [item for item in recorder.shown if isinstance(item, LogLine)]
    assert 0 < len(lines) < 5000
    assert recorder.shown[-1] == summary()


def test_a_broken_view_is_remembered_and_the_run_goes_on():
    error = BrokenPipeError("gone")
    recorder = Recorder(breaks_with=error)
    with EventThread(recorder, lambda: at(0)) as event_thread:
        event_thread.emit(started())
        event_thread.emit(summary())
    assert event_thread.failure is error
    assert recorder.shown == []
