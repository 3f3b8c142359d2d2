"""How much work a sound is: its seconds, and its channels times its samples at the model's rate."""

from __future__ import annotations

from collections.abc import Callable

from rave_dist.audio.io.open import AudioInfo
from rave_dist.errors import LimitError
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.serving.schema import Limits

_FIX = "send a shorter one, or convert it with POST /v1/jobs or rave-dist convert"


def work_limit(limits: Limits, sound: AudioInfo, card: ModelCard, parameters: ConversionParameters) -> Callable[[float], None]:
    """A function that refuses a sound once the given seconds of it exceed the limits of a request.

    It is called here with the length that the headers declare; call it with what is decoded too, because headers can lie.

    Args:
        limits: of the service.
        sound: its headers.
        card: of the model.
        parameters: of the conversion; more channels than the sound has are more work.

    Raises:
        LimitError: the declared length is too much.
    """
    channels = max(sound.channels, parameters.channels or 1)

    def check(seconds: float) -> None:
        if seconds > limits.sound_seconds:
            raise LimitError(f"the sound is longer than {limits.sound_seconds:g} seconds", where="sound", fix=_FIX)
        if channels * seconds * card.sample_rate > limits.model_samples:
            most = limits.model_samples / card.sample_rate / channels
            raise LimitError(
                f"the sound has too many channels for its length: {channels}, which are allowed for {most:.3g} seconds",
                where="sound",
                fix="send fewer channels or a shorter sound, or convert it with POST /v1/jobs or rave-dist convert",
            )

    check((sound.samples or 0) / sound.sample_rate)
    # A chunk of the model, and a block of the decoder, have at least about a second.
    check(min(1.0, limits.sound_seconds))
    return check
