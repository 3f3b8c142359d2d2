"""Serving: the registry's models over HTTP, on Ray Serve."""
