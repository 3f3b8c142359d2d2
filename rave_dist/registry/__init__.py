"""The registry: verified, immutable models of finished runs, found by name."""
