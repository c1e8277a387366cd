"""The ``doctor`` command: finds problems before the next backup, and changes nothing.

Each module is about one subject. A check returns findings, and raises nothing for a problem.
"""
