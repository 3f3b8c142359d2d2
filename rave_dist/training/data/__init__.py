"""Training windows of PCM, and their augmentation."""
