"""Windows of PCM and their augmentation."""
