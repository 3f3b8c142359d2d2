"""Distances and levels: spectra, loudness, pitch, clipping."""
