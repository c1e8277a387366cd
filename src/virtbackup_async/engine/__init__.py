"""What happens: plans, and the work on domains. Speaks by events; never prints."""
