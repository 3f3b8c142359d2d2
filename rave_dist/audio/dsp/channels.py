"""Channel counts: how c channels become m.

Output channel j is the mean of the input channels i with i ≡ j (mod m); where there are fewer inputs than outputs it is
input j mod c. So a down-mix to mono is the mean of all, mono to stereo is the same twice, and the same count is untouched.
"""

from __future__ import annotations

import numpy as np

from rave_dist.audio.types import Audio


def map_channels(block: Audio, channels: int) -> Audio:
    """Gives a block another number of channels.

    Args:
        block: float32 [c, samples].
        channels: how many are wanted, m >= 1.

    Returns:
        float32 [m, samples]; the same array where m == c.
    """
    count = block.shape[0]
    if count == channels:
        return block
    if count < channels:
        repeated: Audio = block[np.arange(channels) % count]
        return repeated
    return np.stack([block[j::channels].mean(axis=0, dtype=np.float32) for j in range(channels)])
