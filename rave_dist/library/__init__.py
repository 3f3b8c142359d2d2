"""The library manifest: what to train, on what, for how long."""
