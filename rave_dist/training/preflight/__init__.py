"""What is measured and tried before a run."""
