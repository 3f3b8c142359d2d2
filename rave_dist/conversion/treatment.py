"""Treatment of a recording before the model and of the result after it, so that background noise does not become artefacts.

::

    first pass     source ─> Profile: noise floor, loudness
    second pass    source ─┬─> before: denoise ─> model ─┐
                           └─> dry sound, gate ──────────┴─> after: mix ─> gate ─> familiar ─> loudness ─> file

Both passes are streams in constant memory, and the samples do not depend on the blocks. The mix comes before the gate, so
that silence is silent; the loudness comes last and needs the whole output, which is kept in a temporary file meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.gate import Gate, Hops, sounding
from rave_dist.audio.dsp.noise_profile import NoiseProfile
from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.dsp.spectral_gate import denoise
from rave_dist.audio.metrics.familiarity import Familiarity
from rave_dist.audio.metrics.loudness import LEAST_SAMPLE_RATE, SILENCE_LUFS, LoudnessMeter
from rave_dist.audio.types import Audio
from rave_dist.conversion.broadcast import Broadcast
from rave_dist.conversion.call_gains import ABOVE_DB, CallGains
from rave_dist.conversion.match_loudness import FileGain, Gains, with_gains
from rave_dist.records import Treatment


class Profile:
    """What a treatment needs to know of a recording beforehand; one pass in constant memory, for any blocks.

    Args:
        treatment: what will be done.
        sample_rate: of the recording, in Hz.
        channels: of the recording.
        out_channels: of the output.

    Attributes:
        noise: the noise floor, if it is needed.
        loudness: the meter of the recording with the output's channels, if it is needed and defined.
    """

    def __init__(self, treatment: Treatment, *, sample_rate: int, channels: int, out_channels: int) -> None:
        self._out_channels = out_channels
        self.noise: NoiseProfile | None = None
        self.loudness: LoudnessMeter | None = None
        if treatment.denoise or treatment.gate is not None or treatment.match_loudness == "call":
            self.noise = NoiseProfile(sample_rate=sample_rate, channels=channels)
        if treatment.match_loudness == "file" and sample_rate >= LEAST_SAMPLE_RATE:
            self.loudness = LoudnessMeter(sample_rate=sample_rate, channels=out_channels)

    def add(self, block: Audio) -> None:
        """Adds the next block, float32 [channels, n]."""
        if self.noise is not None:
            self.noise.add(block)
        if self.loudness is not None:
            self.loudness.add(map_channels(block, self._out_channels))


def before(blocks: Iterator[Audio], profile: Profile, treatment: Treatment, *, sample_rate: int) -> Iterator[Audio]:
    """What the model receives, at the rate and with the channels of the recording."""
    if treatment.denoise and profile.noise is not None:
        return denoise(blocks, floor=profile.noise.floor, sample_rate=sample_rate, amount=treatment.denoise)
    return blocks


def after(
    wet: Iterator[Audio],
    source: Broadcast,
    profile: Profile,
    treatment: Treatment,
    *,
    rates: tuple[int, int],
    channels: int,
    notes: list[str],
    familiarity: Familiarity | None = None,
) -> Iterator[Audio]:
    """What is written.

    Args:
        wet: the model's output, not limited to full scale, float32 [channels, n].
        source: the recording as in its file, before its first block is read.
        profile: of the whole recording.
        treatment: what is done.
        rates: of the recording and of the output, in Hz.
        channels: of the output.
        notes: a remark is appended where the loudness cannot be matched.
        familiarity: of the recording, which is scored as ``wet`` is read.
    """
    if treatment.mix < 1:
        mapped = (map_channels(block, channels) for block in source.reader())
        dry = resample(mapped, rate=rates[0], new_rate=rates[1], channels=channels)
        wet = _mixed(wet, dry, np.float32(treatment.mix))
    if treatment.gate is not None or treatment.skip_silence is not None:
        hops = sounding(
            source.reader(),
            sample_rate=rates[0],
            floor=None if treatment.gate is None or profile.noise is None else profile.noise.floor,
            above_db=treatment.gate or 0.0,
            peak=0.0 if treatment.skip_silence is None else 10 ** (treatment.skip_silence / 20),
        )
        wet = _gated(wet, Gate(hops, rate=rates[0], new_rate=rates[1]))
    if treatment.only_above is not None and familiarity is not None:
        wet = _familiar(wet, familiarity, treatment.only_above, rate=rates[1])
    if treatment.match_loudness is not None:
        gains = _gains(source, profile, treatment, rates=rates, channels=channels)
        wet = with_gains(wet, gains, channels=channels, notes=notes)
    return wet


def _gains(source: Broadcast, profile: Profile, treatment: Treatment, *, rates: tuple[int, int], channels: int) -> Gains:
    if treatment.match_loudness == "file" or profile.noise is None or min(rates) < LEAST_SAMPLE_RATE:
        target = SILENCE_LUFS if profile.loudness is None else profile.loudness.integrated
        return FileGain(target, sample_rate=rates[1], channels=channels)
    above = ABOVE_DB if treatment.gate is None else treatment.gate
    hops = sounding(source.reader(), sample_rate=rates[0], floor=profile.noise.floor, above_db=above)
    recorded = (map_channels(block, channels) for block in source.reader())
    return CallGains(hops, recorded, rate=rates[0], new_rate=rates[1], channels=channels)


def _mixed(wet: Iterator[Audio], dry: Iterator[Audio], share: np.float32) -> Iterator[Audio]:
    held: deque[Audio] = deque()
    length = 0
    for block in wet:
        wanted = block.shape[1]
        while length < wanted:
            more = next(dry)
            held.append(more)
            length += more.shape[1]
        joined = np.concatenate(held, axis=1)
        yield share * block + (1 - share) * joined[:, :wanted]
        held, length = deque([joined[:, wanted:]]), length - wanted


def _gated(blocks: Iterator[Audio], gate: Gate) -> Iterator[Audio]:
    for block in blocks:
        yield block * gate.read(block.shape[1])


def _familiar(blocks: Iterator[Audio], familiarity: Familiarity, least: float, *, rate: int) -> Iterator[Audio]:
    """Silences the half seconds that are less familiar; blocks are held until the half second after them is scored."""
    gate = Gate(_decisions(familiarity.percent, least), rate=2, new_rate=rate, hop=1)
    held: deque[Audio] = deque()
    end = 0  # of the first block that is held
    for block in blocks:
        held.append(block)
        while held and 2 * (end + held[0].shape[1]) <= rate * (len(familiarity.percent) - 1):
            end += held[0].shape[1]
            first = held.popleft()
            yield first * gate.read(first.shape[1])
    for block in held:
        yield block * gate.read(block.shape[1])


def _decisions(percent: bytearray, least: float) -> Iterator[Hops]:
    """Which half seconds are familiar, as far as they are scored whenever more are asked for."""
    done = 0
    while done < len(percent):
        more = np.frombuffer(bytes(percent[done:]), np.uint8) / 100 >= least
        done += len(more)
        yield more
