"""Serving: the registry's models behind HTTP, on Ray Serve."""
