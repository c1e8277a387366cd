import pytest

from virtbackup_async.model.amounts import age, duration, size


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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 minutes"),
        (60, "1 minute"),
        (3600, "1 hour"),
        (86400, "24 hours"),
        (172799, "47 hours"),
        (172800, "2 days"),
    ],
)
def test_an_age_is_told_in_its_largest_unit_rounded_down(seconds, said):
    assert age(seconds) == said
