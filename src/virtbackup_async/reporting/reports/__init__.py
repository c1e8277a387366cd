"""What commands report, collected from events: the same for every form of output."""
