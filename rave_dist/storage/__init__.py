"""One store over folders and S3."""
