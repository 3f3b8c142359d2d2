"""Latents as a table: a Parquet file with a row per frame, which any tool may edit.

::

    seconds  z1  z2  ...            of a sound that is one row for the model
    seconds  c1_z1 ... c2_z1 ...    of several: of a stereo sound and a mono model, two

``seconds`` is the time of the frame's start. It informs: the order of the rows counts. The schema's metadata have one key,
``rave-dist``, a JSON object with the fields of `LatentsInfo`. Written and read in groups of rows, so in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.types import Audio
from rave_dist.errors import ConversionError, from_os_error
from rave_dist.identity import canonical_json
from rave_dist.records import ModelCard
from rave_dist.records.base import Record

_KEY = b"rave-dist"
_BATCH_ROWS = 4096
_ENCODE_AGAIN = "encode the sound again"


class LatentsInfo(Record):
    """What a table of latents says about itself.

    Attributes:
        format: version of the format.
        model: NAME@VERSION.
        model_sample_rate: in Hz.
        model_channels: of the model's sound.
        hop: samples per frame at the model's rate.
        latents: per frame and row.
        sample_rate: of the sound, in Hz.
        channels: of the sound.
        samples: of the sound, per channel.
        subtype: the sound's encoding; the decoded file has 16 or 24 bits by it.
        seed: of all noise.
        latent_noise: level of the noise that was drawn around the latents.
        source: name of the sound's file.
        source_sha256: of its bytes.
        source_format: its container.
    """

    format: Literal[1] = 1
    model: str
    model_sample_rate: int = Field(ge=1)
    model_channels: int = Field(ge=1)
    hop: int = Field(ge=1)
    latents: int = Field(ge=1)
    sample_rate: int = Field(ge=1)
    channels: int = Field(ge=1)
    samples: int = Field(ge=1)
    subtype: str
    seed: int
    latent_noise: float = Field(ge=0, allow_inf_nan=False)
    source: str
    source_sha256: str = ""
    source_format: str = ""

    @property
    def rows(self) -> int:
        """Rows of the model: groups of ``model_channels`` channels of the sound."""
        return -(-self.channels // self.model_channels)

    @property
    def model_samples(self) -> int:
        """Samples of the sound at the model's rate."""
        return resampled_length(self.samples, self.sample_rate, self.model_sample_rate)

    @property
    def frames(self) -> int:
        """Frames of the whole sound."""
        return -(-self.model_samples // self.hop)

    @property
    def columns(self) -> list[str]:
        """Names of the columns with latents, in the order of rows and dimensions."""
        prefixes = [""] if self.rows == 1 else [f"c{row + 1}_" for row in range(self.rows)]
        return [f"{prefix}z{index + 1}" for prefix in prefixes for index in range(self.latents)]

    def length(self, frames: int) -> int:
        """Samples of the sound of a number of frames: the recording's if none was added or removed."""
        if frames == self.frames:
            return self.samples
        return resampled_length(frames * self.hop, self.model_sample_rate, self.sample_rate)

    def check_fits(self, card: ModelCard, *, where: str) -> None:
        """Compares with a model's card.

        Raises:
            ConversionError: the latents are not this model's.
        """
        for name, ours, theirs in (
            ("samples per frame", self.hop, card.hop),
            ("latents", self.latents, card.latents),
            ("Hz", self.model_sample_rate, card.sample_rate),
            ("channels", self.model_channels, card.channels),
        ):
            if ours != theirs:
                what = f"the table is for a model with {ours} {name}, and {card.reference} has {theirs}"
                raise ConversionError(what, where=where, fix=_ENCODE_AGAIN)


def write_latents(path: Path, frames: Iterable[Audio], info: LatentsInfo) -> None:
    """Writes a table of latents, a group of rows for each block.

    Args:
        path: of the file.
        frames: [rows, latents, frames] each, in order.
        info: about them.
    """
    fields = [pa.field("seconds", pa.float64()), *(pa.field(name, pa.float32()) for name in info.columns)]
    schema = pa.schema(fields, metadata={_KEY: canonical_json(info.to_json())})
    first = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for block in frames:
            count = block.shape[-1]
            seconds = np.arange(first, first + count) * info.hop / info.model_sample_rate
            columns = [pa.array(seconds), *map(pa.array, block.reshape(-1, count))]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            first += count


class LatentsFile:
    """An open table of latents.

    Args:
        path: of the file.
        like: the table whose metadata count; None for its own. Many tools write tables without them.

    Attributes:
        info: its metadata.
        frames: its number of rows.

    Raises:
        ConversionError: not a table of latents, a column is missing or not numeric, or there are no rows.
        StoreError: it cannot be read.
    """

    def __init__(self, path: Path, like: Path | None = None) -> None:
        self._where = str(path)
        self.info = read_info(path if like is None else like)
        self._file = _open(path)
        self.frames: int = self._file.metadata.num_rows
        schema = self._file.schema_arrow
        if missing := [name for name in self.info.columns if name not in schema.names]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise self._refusal(f"the column {missing[0]}{more} is missing", f"keep the columns {_span(self.info.columns)}")
        for name in self.info.columns:
            kind = schema.field(name).type
            if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
                raise self._refusal(f"the column {name} has the type {kind}", "write numbers")
        if extra := sorted(
            {name for name in schema.names if name not in ("seconds", *self.info.columns)} & _like_latents(schema)
        ):
            raise self._refusal(
                f"the column {extra[0]} is not one of this sound and model", f"keep the columns {_span(self.info.columns)}"
            )
        if not self.frames:
            raise self._refusal("the table has no rows", "keep at least one frame")

    def blocks(self) -> Iterator[Audio]:
        """Its latents, [rows · latents, frames] each, in order.

        Raises:
            ConversionError: a value is NaN, infinite or missing, or the file is damaged.
        """
        first, names = 0, self.info.columns
        try:
            for batch in self._file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
                columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
                with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused below
                    block = np.stack(columns).astype(np.float32)
                if (wrong := np.argwhere(~np.isfinite(block.T))).size:
                    frame, column = (int(each) for each in wrong[0])
                    raise self._refusal(
                        f"row {first + frame + 1} of the column {names[column]} is NaN, infinite or missing",
                        "write a number there",
                    )
                first += block.shape[1]
                yield block
        except (pa.ArrowException, OSError) as error:
            raise self._refusal(f"not readable ({str(error).splitlines()[0]})", "write the table again") from error

    def _refusal(self, what: str, fix: str) -> ConversionError:
        return ConversionError(what, where=self._where, fix=fix)


def is_table(path: Path) -> bool:
    """Whether a file is an intact Parquet file, with any content."""
    try:
        _open(path)
    except ConversionError:
        return False
    return True


def read_info(path: Path) -> LatentsInfo:
    """The metadata of a table.

    Raises:
        ConversionError: not a table of latents.
        StoreError: it cannot be read.
    """
    metadata = _open(path).schema_arrow.metadata or {}
    if _KEY not in metadata:
        raise ConversionError(
            "the table does not say of which model its latents are",
            where=str(path),
            fix="keep the schema's metadata, or name the table that it was made from with --like ORIGINAL.parquet",
        )
    try:
        return LatentsInfo.model_validate_json(metadata[_KEY])
    except ValidationError as error:
        raise ConversionError("its metadata are not those of latents", where=str(path), fix=_ENCODE_AGAIN) from error


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ConversionError("not a Parquet file", where=str(path), fix="give a table that rave-dist encode wrote") from error
    except OSError as error:
        if error.errno is None:  # pyarrow's own, of a damaged footer
            raise ConversionError("a damaged Parquet file", where=str(path), fix="write the table again") from error
        raise from_os_error(error, where=str(path)) from error


def _like_latents(schema: Any) -> set[str]:
    """Columns that are named as latents are; all others, such as notes, are left alone."""
    return {name for name in schema.names if name.rpartition("_")[2][:1] == "z" and name.rpartition("z")[2].isdigit()}


def _span(columns: list[str]) -> str:
    return columns[0] if len(columns) == 1 else f"{columns[0]} to {columns[-1]}"
