"""Files below a target, opened from directory to directory; no link leads out of it."""
