"""Measurements and tests before a run."""
