"""Collects what is known of all guests and targets, for the overview; changes nothing."""
