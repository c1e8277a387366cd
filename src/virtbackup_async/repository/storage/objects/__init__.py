"""A target in an object store (S3, GCS, Azure): requests, errors, files and leases."""
