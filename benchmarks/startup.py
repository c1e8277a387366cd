"""How long the command takes to say something that needs no work.

python benchmarks/startup.py [--runs N]
"""

import argparse

from timing import print_runs, program


def main() -> None:
    """Run it as the module says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    for words in (["--version"], ["--help"], ["list", "--help"], ["config", "schema"]):
        print_runs([*program(), *words], options.runs)


if __name__ == "__main__":
    main()
