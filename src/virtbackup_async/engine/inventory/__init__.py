"""What there is: listing, statistics, dates, and the choice of one backup."""
