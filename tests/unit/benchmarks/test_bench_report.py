"""The page, the pictures, and that one run is measured for what it is."""

import sys

import pytest
from benchmarks import measure
from benchmarks.chart import svg
from benchmarks.host import Host
from benchmarks.measure import RunFailedError, run, stored_bytes
from benchmarks.page import Report, markdown, table
from benchmarks.race import Contender, Rounds, Start, race
from benchmarks.results import GuestIo, Race, Sample, Series
from benchmarks.targets import Verdict
from benchmarks.world import _fitting
from lxml import etree

HOST = Host("Debian", "2 x CPU", 1024, {"QEMU": "7.2"}, absent=["restic"], load=0.5)
OURS = Series("virtbackup", [Sample(1, 2, 3_000_000, 4_000_000, 90)])
RACE = Race("backup <zstd>", "On an image.", [OURS, Series("a & b", [Sample(2, 2, 1)])])
SVG = "{http://www.w3.org/2000/svg}"


def report(**parts):
    given = {"verdicts": [], "races": [], "guest_io": [], **parts}
    return Report("./scripts/bench", "2026-01-01", HOST, **given)


def test_page_says_what_was_not_measured():
    page = markdown(report(verdicts=[Verdict("list", "fast", "", None)]))

    assert "Not installed, so not measured: restic." in page
    assert "| list | fast |  | not measured |" in page


def test_table_of_a_race_has_ratios_to_the_first_and_dashes():
    page = markdown(report(races=[RACE]))

    assert "| virtbackup | 1.00 s | 1.00 | 2.00 s | 3 MB | 4 MB | 90 ms |" in page
    assert "| a & b | 2.00 s | 2.00 | 2.00 s | 0 MB | - | - |" in page


def test_columns_without_figures_are_left_out():
    page = markdown(report(races=[Race("startup", "", [Series("a", [Sample(1, 1, 1_000_000)])])]))

    assert "stored" not in page
    assert "| a | 1.00 s | 1.00 | 1.00 s | 1 MB |" in page


def test_guests_io_is_averaged_over_rounds_but_its_gaps_are_not():
    felt = [GuestIo("ours", 10, 8, 300, 50), GuestIo("ours", 10, 6, 200, 70)]

    page = markdown(report(guest_io=felt))

    assert "| ours | 10.0 MiB/s | 7.0 MiB/s | 70 % | 70 ms | 300 ms |" in page


def test_bar_in_a_cell_does_not_end_it():
    assert table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x/y |\n"


def test_chart_is_an_svg_with_a_bar_each():
    drawn = etree.fromstring(svg("Time & tide", [RACE]))

    bars = drawn.findall(f".//{SVG}rect")
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert [bar.get("class") for bar in bars] == ["ours", "peer"]
    assert int(bars[1].get("width")) == 2 * int(bars[0].get("width"))
    assert {"Time & tide", "backup <zstd>", "a & b", "2.00 s"} <= set(texts)


def test_chart_of_nothing_is_an_svg():
    assert etree.fromstring(svg("nothing", [])).tag == f"{SVG}svg"


def test_memory_and_output_are_those_of_the_program_and_its_children(tmp_path, monkeypatch):
    # The child holds 60 MiB until it has been seen.
    seen = tmp_path / "seen"
    wait = f"while not os.path.exists({str(seen)!r}): time.sleep(0.01)"
    child = f"import os, time\nheld = b'x' * (60 << 20)\n{wait}"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(1)"
    look = measure._tree_bytes

    def look_and_let_go(pid):
        found = look(pid)
        if found > 60 << 20:
            seen.touch()
        return found

    monkeypatch.setattr(measure, "_tree_bytes", look_and_let_go)

    done = measure.run([sys.executable, "-c", parent])

    assert done.output == "1\n"
    assert done.peak_bytes > 60 << 20


def test_failure_is_told_with_the_end_of_what_was_said():
    with pytest.raises(RunFailedError, match="ended with 3: no such thing"):
        run(["sh", "-c", "echo no such thing >&2; exit 3"])


def test_holes_are_not_stored(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(100 << 20)
        file.write(b"x" * 4096)

    assert 0 < stored_bytes(tmp_path) < 1 << 20


def run_race(contenders, rounds, least_s=0):
    # A sync of the whole machine may take long, and is not what is tested.
    rounds = Rounds(rounds, least_s)
    return race("r", "About.", contenders, rounds, Start(settle=lambda: None))


def contender(name, script, output, **options):
    return Contender(name, ["sh", "-ec", script, "sh", str(output)], output, **options)


def test_each_round_runs_all_from_an_emptied_output(tmp_path):
    log = tmp_path / "log"
    script = f'[ -z "$(ls "$1")" ]; echo x >"$1/made"; echo "$0" >>{log}'
    contenders = [
        Contender(name, ["sh", "-ec", script, name, str(tmp_path / name)], tmp_path / name)
        for name in ("a", "b")
    ]

    ran = run_race(contenders, 2)

    assert log.read_text().split() == ["a", "b", "a", "b"]
    assert [len(series.samples) for series in ran.series] == [2, 2]


def test_short_race_goes_on_but_not_for_ever(tmp_path):
    (series,) = run_race([contender("ours", ":", tmp_path / "o")], 2, least_s=3600).series

    assert len(series.samples) == 9


def test_page_says_how_many_rounds_there_were():
    page = markdown(report(races=[RACE, Race("b", "Short.", [Series("a", OURS.samples * 7)])]))

    assert "On an image. One round.\n" in page
    assert "Short. 7 rounds.\n" in page


def test_peer_that_fails_is_left_out_and_named(tmp_path):
    undone = []
    failing = contender("peer", "exit 1", tmp_path / "p", undo=lambda: undone.append(1))

    ran = run_race([contender("ours", ":", tmp_path / "o"), failing], 2)

    assert [series.contender for series in ran.series] == ["ours"]
    assert ran.about == "About. peer failed and is left out."
    assert undone == [1]


def test_our_own_failure_ends_the_race(tmp_path):
    with pytest.raises(RunFailedError):
        run_race([contender("ours", "exit 1", tmp_path / "o", is_ours=True)], 1)


def test_freeze_is_read_from_json_lines(tmp_path):
    lines = '{"event":"backup_done","frozen_ms":90}'
    ran = run_race([contender("ours", f"echo '{lines}'", tmp_path / "o")], 1)

    assert ran.series[0].samples[0].frozen_ms == 90


def test_gathered_files_fit_where_they_are_told_to(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, length in {"a": 5000, "b": 100_000, "c": 10, "d": 10}.items():
        (tree / name).write_bytes(bytes(length))

    assert [file.name for file in _fitting(tree, 3 * 4096)] == ["a", "c"]
