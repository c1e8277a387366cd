"""``scripts/bench``: run the benchmarks, write the page, the pictures and the figures.

::

    scripts/bench                     all of it, into docs/benchmarks/ (an hour)
    scripts/bench --quick             little data, one round, into a temporary directory (3 minutes)
    scripts/bench --only zstd --only sparse --runs 5 --output DIR
    scripts/bench --only scale --hosts 100 --guests 20 --nights 30
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import scale, serve
from benchmarks.cases import GUEST_CASES, Bench, Figures
from benchmarks.chart import svg
from benchmarks.contenders import compile_installation
from benchmarks.host import describe
from benchmarks.host_cases import HOST_CASES
from benchmarks.incremental_cases import INCREMENTAL_CASES
from benchmarks.page import Report, markdown
from benchmarks.race import Rounds, say
from benchmarks.repository_cases import REPOSITORY_CASES
from benchmarks.store_cases import STORE_CASES
from benchmarks.targets import judge
from benchmarks.world import QUICK, Sizes, open_guest, open_world

_DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
_RUNS, _QUICK_RUNS = 3, 1
# So long a race goes on: the shorter its runs, the more a machine's other work shows in them.
_LEAST_S = 45
_WITHOUT_GUEST = {**HOST_CASES, **INCREMENTAL_CASES, **REPOSITORY_CASES, **STORE_CASES}
_NAMES = [*GUEST_CASES, *_WITHOUT_GUEST]
# Of its own kind: nothing races, and it takes as long as it is told to.
_SCALE = "scale"
# What has no small form: memory is that of full buffers, and the others are about large numbers.
_NOT_QUICK = {"memory", "list", "huge-repository"}


def main() -> None:
    """Run what the command line asks for."""
    options = _options()
    output = options.output or _default_output(options)
    if options.only == [_SCALE]:
        scale.run(scale.size_of(options), output)
        return
    if options.only == [serve.NAME]:
        serve.run(output, quick=options.quick)
        return
    host = describe()
    with tempfile.TemporaryDirectory(prefix="virtbackup-state-") as state:
        # What is noted of these backups is no business of this host.
        os.environ["VIRTBACKUP_STATE_DIRECTORY"] = state
        figures = _measure(options)
    report = Report(
        command=shlex.join(["./scripts/bench", *sys.argv[1:]]),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        host=host,
        verdicts=judge(figures.races),
        races=figures.races,
        guest_io=figures.guest_io,
    )
    _write(report, output)
    for verdict in report.verdicts:
        if verdict.is_met is not None:
            met = "met    " if verdict.is_met else "NOT MET"
            print(f"{met}  {verdict.name}: {verdict.demand}: {verdict.measured}")
    print(f"written to {output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="in 3 minutes; figures are rough")
    names = f"may be given again; of: {', '.join(_NAMES)}; or alone: {_SCALE}, {serve.NAME}"
    parser.add_argument("--only", action="append", choices=[*_NAMES, _SCALE, serve.NAME],
                        metavar="NAME", help=names)  # fmt: skip
    parser.add_argument("--runs", type=int, help=f"rounds; by default {_RUNS} or more")
    parser.add_argument("--output", type=Path, help="where to; by default docs/benchmarks")
    scale.add_options(parser)
    return parser.parse_args()


def _default_output(options: argparse.Namespace) -> Path:
    """The docs are written only by a run of everything."""
    if options.quick or options.only:
        return Path(tempfile.mkdtemp(prefix="virtbackup-bench-"))
    return _DOCS


def _names(options: argparse.Namespace) -> Sequence[str]:
    """The cases that are wanted."""
    left_out = _NOT_QUICK if options.quick else set()
    return options.only or [name for name in _NAMES if name not in left_out]


def _rounds(options: argparse.Namespace) -> Rounds:
    if options.quick and not options.runs:
        return Rounds(_QUICK_RUNS)
    return Rounds(options.runs) if options.runs else Rounds(_RUNS, _LEAST_S)


def _measure(options: argparse.Namespace) -> Figures:
    names, figures = _names(options), Figures()
    compile_installation()
    with open_world(QUICK if options.quick else Sizes()) as world:
        bench = Bench(world, _rounds(options), figures)
        with_guest = [case for name, case in GUEST_CASES.items() if name in names]
        if with_guest:
            with open_guest(world) as guest:
                for case in with_guest:
                    case(bench, guest)
        for name, case_of_host in _WITHOUT_GUEST.items():
            if name in names:
                case_of_host(bench)
    return figures


def _write(report: Report, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "README.md").write_text(markdown(report))
    figures = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (output / "figures.json").write_bytes(figures + b"\n")
    for verb in ("backup", "restore"):
        races = [race for race in report.races if race.name.startswith(f"{verb} ")]
        title = f"Time of a {verb}; shorter is better"
        (output / f"{verb}.svg").write_text(svg(title, races))
    say("")


if __name__ == "__main__":
    main()
