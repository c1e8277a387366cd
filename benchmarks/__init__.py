"""The benchmarks: this program beside virt-backup and beside the tools that do a part of its work.

``scripts/bench`` runs them, on a guest of the lab (``tests/support/lab``). The way of a figure::

    cases/      which programs race each other, on what; the guest's own I/O meanwhile
      world.py        the guest, its images, a directory for what is written
      contenders.py   the programs: command line, preparation, what they leave
    race.py     A B C, A B C, ...: one run of each in a round, so that noise hits all of them
      measure.py      one run: clock, CPU and memory of the whole process tree
    results.py  the figures; medians, and ratios taken round by round
    targets.py  what this project demands of itself, and the verdicts
    page.py, chart.py   Markdown and SVG of all that; the figures themselves as JSON

Timings are never tests: a machine has bad days. What is pure here is tested in
``tests/unit/benchmarks``.
"""
