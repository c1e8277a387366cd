"""Looks before the night for what would go wrong in it; changes nothing that stays.

One module a subject; each check gives findings and never raises for what it finds.
"""
