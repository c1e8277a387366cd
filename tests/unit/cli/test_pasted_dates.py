"""A date copied from ``list`` means the backup that it stood beside, whatever the width."""

import re
import time
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from fakes.recorded_run import listed, summary
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.engine.inventory.backup_names import Place, meanings
from virtbackup_async.engine.inventory.dates import at_date

DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?([+-]\d\d:\d\d)?")
SUMMER_BEGINS, SUMMER_ENDS = 1774746000, 1792890000  # in Berlin
MOMENTS = st.lists(
    st.integers(SUMMER_ENDS - 7200, SUMMER_ENDS + 7200)
    | st.integers(SUMMER_BEGINS - 3600, SUMMER_BEGINS + 3600)
    | st.integers(1_790_000_000, 1_790_000_200),  # several in a minute
    min_size=1,
    max_size=12,
    unique=True,
)


class Backup(Struct, frozen=True):
    """A backup as ``at_date`` looks at it."""

    date: int
    name: str


@pytest.fixture(scope="module", autouse=True)
def berlin():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@given(MOMENTS, st.sampled_from([30, 60, 80, 120]))
def test_pasted_date_means_the_backup_that_it_stood_beside(moments, width):
    report, out = reports.listing(), StringIO()
    for moment in moments:
        date = datetime.fromtimestamp(moment, UTC).astimezone().isoformat()
        report.add(replace(listed("web", 1), date=date))
    report.print(text_console(out, width=width), summary())
    printed = [found[0] for line in out.getvalue().splitlines() if (found := DATE.search(line))]
    backups = [Backup(moment, f"b{moment}") for moment in sorted(moments)]
    meant = [at_date(backups, date) for date in printed]
    assert meant == backups[::-1]
    place = Place("main", Path("/t"), {"web"}, {}, lambda _: True)
    for date in printed:
        assert [one.date for one in meanings(f"web@{date}", [place])] == [date]
