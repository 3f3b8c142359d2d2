"""What a run starts from, saves and leaves."""
