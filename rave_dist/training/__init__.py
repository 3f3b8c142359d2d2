"""Training: RAVE's mathematics in a new training loop, for one run or many."""
