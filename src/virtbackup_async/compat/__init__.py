"""Old raw data to the newest raw data: configuration, definition, pending. Pure, no I/O.

Each kind of data is one module with one step for each change of its format. The readers of
``config`` and ``catalog`` call it on what they parsed, before they look at any value of it.
"""
