"""The library manifest: instruments, recordings and settings."""
