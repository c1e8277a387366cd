"""Disks as of one point in time: by snapshot, by pull job, or of a shut-off domain."""
