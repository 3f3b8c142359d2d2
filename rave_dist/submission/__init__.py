"""A library for a cluster: its recordings in the store, its manifest as a package, and the job that runs it."""
