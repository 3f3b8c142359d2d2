"""Find, open, decode and write audio files."""
