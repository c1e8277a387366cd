"""Disks as they were at one moment: by snapshot, by pull job, or of a domain that is shut off."""
