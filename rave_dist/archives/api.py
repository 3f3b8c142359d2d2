"""``rd.convert``: the conversion of archives in the public Python API, like the functions of `rave_dist.api`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Unpack, overload

from rave_dist import archives
from rave_dist.arguments import AnyProgress, AnyStore, reporting, store_of
from rave_dist.options import DEFAULT_CHUNK_SECONDS, DEFAULT_FORMAT, DEFAULT_LATENT_NOISE, DEFAULT_SEED, AudioFormat, LoudnessOf
from rave_dist.records import AllParameters, ConversionParameters
from rave_dist.views import Conversion


@overload
def convert(
    store: AnyStore,
    model: str,
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    chunk_seconds: float = ...,
    workers: int | None = ...,
    page: str | Path | None = ...,
    progress: AnyProgress = ...,
    **parameters: Unpack[AllParameters],
) -> Conversion: ...


@overload
def convert(
    store: AnyStore,
    model: list[str] | tuple[str, ...],
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    chunk_seconds: float = ...,
    workers: int | None = ...,
    page: str | Path | None = ...,
    progress: AnyProgress = ...,
    **parameters: Unpack[AllParameters],
) -> tuple[Conversion, ...]: ...


def convert(
    store: AnyStore,
    model: str | list[str] | tuple[str, ...],
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    format: AudioFormat = DEFAULT_FORMAT,
    seed: int = DEFAULT_SEED,
    latent_noise: float = DEFAULT_LATENT_NOISE,
    noise: float = 1.0,
    temperature: float = 1.0,
    latents: Mapping[int, tuple[float, float]] = MappingProxyType({}),
    named: Mapping[str, float] = MappingProxyType({}),
    salvage: bool = False,
    denoise: float = 0.0,
    gate: float | None = None,
    skip_silence: float | None = None,
    mix: float = 1.0,
    match_loudness: LoudnessOf | None = None,
    only_above: float | None = None,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    workers: int | None = None,
    page: str | Path | None = None,
    progress: AnyProgress = None,
) -> Conversion | tuple[Conversion, ...]:
    """Converts recordings with a model, keeping the folder tree, lengths, sample rates and channels.

    Sources are never written to. A second call converts only what is missing. With a list of models each recording is decoded
    once for all, and the results lie in ``output/<model>``. For arrays, see `Converter`.

    Args:
        store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.
        model: NAME or NAME@VERSION, or a list of them.
        inputs: files, folders, globs or ``s3://`` prefixes; one or several.
        output: a folder or ``s3://`` prefix; for a single source it may be a file name ending in .flac or .wav.
        sample_rate: of the results, in Hz; None keeps each source's.
        channels: of the results; None keeps each source's.
        format: ``keep`` for WAV where the recording is WAV or a relative of it, otherwise FLAC; or ``flac`` or ``wav`` for all.
        seed: picks all noise.
        latent_noise: level of the noise around the latents: 1 as the streaming file plays, 0 for their mean.
        noise: level of the model's noise generator, if it has one; 0 leaves it out.
        temperature: factor on all latents, which for variational models lie around the mean of the training set.
        latents: (scale, bias) of single latents, which count from 1; applied after the temperature.
        named: changes of latents by their names in the card, such as ``loudness``, in standard deviations.
        salvage: convert the readable part of damaged files.
        denoise: share of the background noise that is removed before the model, 0 to 1.
        gate: silence where the recording is less than this many dB above its noise floor in every third of an octave.
        skip_silence: silence where the recording is below this peak in dBFS.
        mix: share of the model's output, 0 to 1; the rest is the recording.
        match_loudness: ``file`` gives each result the loudness of its recording (BS.1770), without clipping; ``call`` each call
            that is 12 dB, or the gate, above the noise floor.
        only_above: silence where the recording is less familiar to the model than this, 0 to 1.
        chunk_seconds: seconds of audio in memory at once; it does not change the result.
        workers: processes that convert, on Ray; None converts in this process if that takes about a minute, otherwise on Ray.
        page: an HTML file or address to write a page to: totals, problems, credit, and a sample to listen to.
        progress: None is silent, True shows it on stderr.

    Returns:
        How many files were converted and skipped, and which failed, with reasons; for a list of models a tuple of these.

    Raises:
        ModelNotFoundError: no such model or version.
        ConversionError: no inputs, or OUTPUT inside or equal to an input.
        AudioError: no recording matches an input.
        StoreError: the store or OUTPUT cannot be used.
        ClusterError: Ray cannot be started or reached.

    Example:
        >>> result = rd.convert("store", "rebana", "field", "converted")
        >>> result.converted, result.seconds, result.failed
        (1, 3.0, ())
    """
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    place = store_of(store)
    parameters = ConversionParameters.of(
        sample_rate=sample_rate,
        channels=channels,
        format=format,
        seed=seed,
        latent_noise=latent_noise,
        noise=noise,
        temperature=temperature,
        latents=latents,
        named=named,
        salvage=salvage,
        denoise=denoise,
        gate=gate,
        skip_silence=skip_silence,
        mix=mix,
        match_loudness=match_loudness,
        only_above=only_above,
    )
    with reporting(progress) as shown:
        records = archives.convert(
            place,
            [model] if isinstance(model, str) else model,
            [str(each) for each in given],
            str(output),
            parameters=parameters,
            chunk_seconds=chunk_seconds,
            workers=workers,
            page=page,
            progress=shown,
        )
    conversions = tuple(Conversion.of(record, place) for record in records)
    return conversions[0] if isinstance(model, str) else conversions
