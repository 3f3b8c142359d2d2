"""rave-dist: recordings of many instruments in, a library of playable RAVE models out, archives converted through them."""

__version__ = "0.1.0"
