"""All access to acids-rave, gin and cached_conv."""
