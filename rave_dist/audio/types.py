"""The array types of audio: float samples and 16-bit PCM, channels first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]
"""Samples ``[C, T]`` (or ``[T]`` where a function says so), full scale = 1."""

Pcm16 = NDArray[np.int16]
"""Samples ``[C, T]`` as 16-bit integers, full scale = 32768."""
