"""Resampling, channel mapping and chunking."""
