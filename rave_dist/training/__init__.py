"""Training: RAVE's mathematics in our own loop, one run or many."""
