"""The disk space of a run, from the number of its model's parameters; imports nothing heavy."""

from __future__ import annotations

_CHECKPOINT_BYTES = 20  # per parameter: its value, Adam's moments, and its best value of each phase
_MODEL_BYTES = 5 * 4  # per parameter: the weights of both phases, and of two exports


def run_bytes(parameters: int, *, keep: int) -> int:
    """Bytes of a run's checkpoints, weights and published model in the store.

    Args:
        parameters: of the model.
        keep: number of checkpoints that are kept; one more exists while it is written.
    """
    return ((keep + 1) * _CHECKPOINT_BYTES + _MODEL_BYTES) * parameters
