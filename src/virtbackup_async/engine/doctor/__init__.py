"""The ``doctor`` command: finds problems before the next backup, and changes nothing.

One module a subject; each check gives findings and never raises for what it finds.
"""
