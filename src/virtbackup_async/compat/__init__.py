"""Converts configuration, definition and pending files of older versions to today's shape.

Each kind of data is one module with one step for each change of its format. The readers of
``config`` and ``catalog`` call it on what they parsed, before they look at any value of it.
"""
