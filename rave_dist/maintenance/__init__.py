"""Whether a store is whole, and what in it is no longer needed."""
