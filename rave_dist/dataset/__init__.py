"""Recordings to datasets: sharded PCM in the store with every second accounted for."""
