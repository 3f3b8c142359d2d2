"""Watches every step for values that are not finite, without waiting for the device, and tells what the step was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from rave_dist.dataset.read import Segment, load_manifest
from rave_dist.errors import DatasetError, NotFiniteError
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import NotFiniteReport, TrainingSpec, WindowSource
from rave_dist.storage.store import Store
from rave_dist.training.data.loader import PcmSegment

Places = Sequence[tuple[int, int]]


class NotFinite(Exception):
    """``what`` is NaN or infinite since step number ``step`` (from 0), whose batch came from ``places``."""

    def __init__(self, what: str, step: int, places: Places = ()) -> None:
        super().__init__(what, step)
        self.what, self.step, self.places = what, step, places


class NonFiniteMonitor:
    """The latest value of every loss, and the first step after which a loss or a weight was not finite; a weight beyond 1e19,
    whose square is not, counts as one.

    Both stay on the device: reading them makes the host wait, so that is done now and then only. Where the batches since came
    from is kept that long.

    Args:
        parameters: all that training changes.
        device: where they are.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], device: torch.device) -> None:
        self._parameters = list(parameters)
        self._latest: dict[str, torch.Tensor] = {}
        self._bad = torch.full((), -1, dtype=torch.long, device=device)
        self._places: dict[int, Places] = {}

    def record(self, step: int, losses: Mapping[str, torch.Tensor], places: Places) -> None:
        """Takes what step number ``step`` (from 0) left."""
        self._latest.update(losses)
        self._places[step] = places
        # The Euclidean norm is the cheapest look at all weights: 9 ms for v2's 59 million on a CPU, a twentieth of the largest.
        weights = torch.nn.utils.get_total_norm([p.detach() for p in self._parameters])
        values = [value.detach().float().to(self._bad.device) for value in losses.values()]
        # A sum of finite values could overflow; zero times each cannot, and is NaN for what is not finite.
        total = torch.stack([*values, weights.float()]).mul(0).sum()
        self._bad = torch.where((self._bad < 0) & total.isnan(), step, self._bad)

    def raise_if_bad(self) -> None:
        """Waits for the device.

        Raises:
            NotFinite: since the step that made it.
        """
        bad = int(self._bad)
        if bad >= 0:
            raise NotFinite("a loss or a weight", bad, self._places.get(bad, ()))
        self._places.clear()

    def drain(self) -> dict[str, float]:
        """The losses since they were last taken.

        Raises:
            NotFinite: one of them, or a weight, is not.
        """
        self.raise_if_bad()
        values = {name: float(value) for name, value in self._latest.items()}
        self._latest.clear()
        return values


def explain(error: NotFinite, store: Store, spec: TrainingSpec, segments: Sequence[PcmSegment]) -> NotFiniteError:
    """The error for people, with the recordings that the step was made of; all of them are written to the run, in the store.

    Args:
        error: what was found.
        store: where the run lies.
        spec: the run.
        segments: what it trains on.
    """
    windows = describe_windows(store, spec, segments, error.places)
    report = NotFiniteReport(step=error.step, what=error.what, window=StepConfig.of(spec).window, windows=tuple(windows))
    report.save(store, spec.folder.not_finite)
    places = [f"{window.source} at {window.seconds:.2f} s" for window in windows]
    batch = f", of a batch with {', '.join(places[:4])}" if places else ""
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    return NotFiniteError(
        f"{error.what} is not a finite number at step {error.step}{batch}{more}",
        where=spec.instrument,
        fix="set recover: {rate: 0.5} to resume from the last checkpoint with half the learning rate, or give another seed; "
        "if it happens again, look at these recordings",
    )


def describe_windows(store: Store, spec: TrainingSpec, segments: Sequence[PcmSegment], places: Places) -> list[WindowSource]:
    """Where windows came from: recording (its name if the dataset is in the store, else its id, else the segment's number), and
    the first sample and second in it at the run's rate.

    Args:
        segments: as `rave_dist.training.data.loader.Windows` got them.
        places: segment and offset of each window.
    """
    try:
        names = {s.source_id: s.source for s in load_manifest(store, spec.instrument, spec.dataset).sources}
    except DatasetError:
        names = {}
    audible = [segment for segment in segments if segment.pcm.shape[-1]]
    windows = []
    for index, offset in places:
        segment = audible[index]
        source, start = (segment.source_id, segment.start) if isinstance(segment, Segment) else (f"segment {index}", 0)
        sample = start + max(0, offset)
        windows.append(WindowSource(source=names.get(source, source), sample=sample, seconds=sample / spec.sample_rate))
    return windows
