"""Everything that knows acids-rave, gin and cached_conv."""
