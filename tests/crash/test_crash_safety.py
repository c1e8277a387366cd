"""Whatever dies, wherever: after ``clean -b`` the domain is at home and no finished backup is lost.

``faults/runs.py`` says what is checked after each fault. The faults are those of the table in
docs/explanation/crash-safety.md; ``pytest tests/crash --all-points`` tries all of them.
"""

import pytest

from faults.runs import SCENARIOS, Fault, Row
from faults.table import COMMAND, planned_rows, quick_rows, read_rows


def test_every_run_covers_enough_points():
    points = {(row.scenario, row.point) for row in quick_rows(read_rows())}
    assert len(points) >= 40


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_table_names_every_point(world, scenario, tmp_path):
    points = Fault(world, tmp_path, Row(scenario, "", "killed")).record()
    planned = {row[:3] for row in planned_rows({scenario: points})}
    named = {row[:3] for row in read_rows() if row.scenario == scenario}
    assert planned == named, f"docs/explanation/crash-safety.md is out of date: run {COMMAND}"


def test_a_fault_loses_nothing(world, row, tmp_path):
    assert Fault(world, tmp_path, row).happen() == row
