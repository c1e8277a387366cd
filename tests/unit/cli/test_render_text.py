import pytest

from virtbackup_async.reporting.text import clock, count, duration, percent, printable, size


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024**2, "1.5 GiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**4, "5.0 TiB"),
        (3000 * 1024**5, "3000.0 PiB"),
    ],
)
def test_size_uses_the_largest_binary_unit_below_it(length, shown):
    assert size(length) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (4.23, "4.2 s"),
        (59.4, "59 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration_reads_as_words(seconds, shown):
    assert duration(seconds) == shown


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
