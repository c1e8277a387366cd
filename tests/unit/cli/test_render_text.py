import pytest

from virtbackup_async.reporting.text import clock, count, percent, printable


@pytest.mark.parametrize(("seconds", "shown"), [(7, "0:07"), (3723, "1:02:03"), (-1, "0:00")])
def test_clock_keeps_its_shape(seconds, shown):
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [(0, 10, 0), (999, 1000, 99), (10, 10, 100), (0, 0, 100), (11, 10, 100)],
)
def test_percent_says_100_only_when_all_is_moved(done, total, shown):
    assert percent(done, total) == shown


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("web\x1b[2J", "web\\x1b[2J"),
        ("a\nb\rc", "a\\nb\\rc"),
        ("x\u202ey", "x\\u202ey"),
        ("\x9b31m", "\\x9b31m"),
        ("caf\udce9", "caf\\udce9"),
        ("[bold]ünï 日本[/]", "[bold]ünï 日本[/]"),
    ],
)
def test_printable_leaves_nothing_that_a_terminal_obeys(hostile, shown):
    assert printable(hostile) == shown


def test_count_knows_the_plural():
    assert [count(number, "disk") for number in (0, 1, 2)] == ["0 disks", "1 disk", "2 disks"]
