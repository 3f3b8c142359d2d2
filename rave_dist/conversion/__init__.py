"""Conversion: audio through a model, exact and resumable, one file or an archive."""
