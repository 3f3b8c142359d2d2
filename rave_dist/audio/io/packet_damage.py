"""What is wrong with the packets of a stream that FFmpeg reads: such as cannot be decoded, and sound missing between them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rave_dist.audio.io.frames import frame_bytes
from rave_dist.errors import AudioError

_GAP_SECONDS = Fraction(15, 1000)  # shorter than a packet, longer than the steps of the times


@dataclass
class PacketDamage:
    """The damage so far.

    Attributes:
        seconds: decoded so far.
        unreadable: packets since the last readable one.
        start: seconds decoded before the first damage.
        packets: number of unreadable and incomplete packets before the last readable one.
        missing: seconds between packets.
    """

    seconds: Fraction = Fraction(0)
    unreadable: int = 0
    start: Fraction | None = None
    packets: int = 0
    missing: Fraction = Fraction(0)

    def add_gap(self, seconds: Fraction) -> None:
        """Adds a jump of the packets' times."""
        if seconds > _GAP_SECONDS:
            self.missing += seconds
            self._begin()

    def add_packets(self, *, incomplete: bool = False) -> None:
        """Adds the unreadable packets, and the readable one behind them if it is incomplete."""
        if self.unreadable or incomplete:
            self.packets += self.unreadable + incomplete
            self._begin()
        self.unreadable = 0

    def _begin(self) -> None:
        if self.start is None:
            self.start = self.seconds

    def error(self) -> AudioError:
        """The error to raise behind the last readable packet."""
        if not self.seconds:
            return AudioError("the audio cannot be decoded")
        if self.start is None or self.start == self.seconds:
            return AudioError("damaged")
        found = [f"packets are incomplete or unreadable ({self.packets})"] if self.packets else []
        found += [f"{float(self.missing):.3f} s are missing"] if self.missing else []
        what = f"damaged at {float(self.start):.3f} s: {' and '.join(found)}; the other {float(self.seconds):.3f} s are read"
        return AudioError(what, where="packets of the file")


def lacks_bytes(packet: Any) -> bool:
    """Whether a packet of AC-3, E-AC-3, DTS or MLP is shorter than its header says; FFmpeg plays something else instead."""
    name = packet.stream.codec_context.name
    if name in ("mlp", "truehd") and packet.size > 1:
        high, low = bytes(packet)[:2]
        return bool(packet.size < 2 * ((high & 15) << 8 | low))
    return name in ("ac3", "eac3", "dca") and packet.size < frame_bytes(bytes(packet)[:10])
