"""Which runs start when and where; independent of Ray."""
