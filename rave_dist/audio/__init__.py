"""Recordings: finding, decoding, resampling and writing them."""
