"""Initial weights, checkpoints and outputs of a run."""
