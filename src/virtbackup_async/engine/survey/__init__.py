"""Collects the facts about all guests and targets, for the overview; changes nothing."""
