"""The store, over folders and S3."""
