"""The registry: trained runs become verified, immutable, findable models."""
