"""The overview: whether every guest can be restored, and how, as pure values.

``build_overview`` turns the facts that ``engine/survey`` collects into it. The page, the mail and
the metrics show it. It reads no clock, does no I/O and knows no output format.
"""
