"""Plans a library's training: steps, place, start and end of every instrument, card-hours and cost.

The seconds of a step are those of earlier runs of the same configuration on the same card where the store has some, otherwise
an estimate from the card's data sheet. Runs that share a card are assumed not to slow each other down.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from rave_dist.errors import ConfigurationError
from rave_dist.library.manifest import Library
from rave_dist.rave.presets import smaller_batch
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import DryRunResult, RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Host, has_room, missing
from rave_dist.scheduling.cards import Card
from rave_dist.scheduling.simulation import START_SECONDS, Span, simulate
from rave_dist.scheduling.timeline import draw_timeline
from rave_dist.storage.probe import in_words
from rave_dist.training.needs import Needs, step_bytes
from rave_dist.training.preflight.model_facts import measure_model
from rave_dist.training.schedule import plan_schedule
from rave_dist.training.speeds import Source, Speeds

_MOST_CARDS = 4096


@dataclass(frozen=True)
class PlannedRun:
    """One instrument of a plan; times in seconds since the start.

    ``share`` is the part of a card, or without cards the number of CPUs, of all its workers. ``source`` says where the seconds
    of a step are from.
    """

    name: str
    steps: int
    phase_1_steps: int
    share: float
    start: float
    end: float
    source: Source

    @property
    def card_hours(self) -> float:
        """Its part of a card times its hours."""
        return self.share * (self.end - self.start) / 3600


@dataclass(frozen=True)
class Night:
    """A plan: its runs by their start, on how many of which cards (None without), and what it costs per card and hour.

    ``spans`` and ``hosts`` are what the picture shows.
    """

    runs: tuple[PlannedRun, ...]
    card: str | None
    cards: int
    deadline: float | None = None
    price: float | None = None
    change: str = ""
    spans: tuple[Span, ...] = ()
    hosts: tuple[Host, ...] = ()

    @property
    def picture(self) -> str:
        """Its timeline, an SVG document."""
        return draw_timeline(self.spans, self.hosts, deadline=self.deadline)

    @property
    def end(self) -> float:
        """Seconds until the last run ends."""
        return max((run.end for run in self.runs), default=0.0)

    @property
    def late(self) -> tuple[str, ...]:
        """The instruments that end after the deadline."""
        return tuple(run.name for run in self.runs if self.deadline is not None and run.end > self.deadline)

    @property
    def card_hours(self) -> float:
        """Hours of all cards until the last run ends: idle ones are paid for too."""
        return self.cards * self.end / 3600

    @property
    def cost(self) -> float | None:
        """In the currency of the price."""
        return None if self.price is None or self.card is None else self.price * self.card_hours

    def to_json(self) -> dict[str, Any]:
        """The document of ``rave-dist plan`` without the library's name."""
        return {
            **{"card": self.card, "cards": self.cards, "end_seconds": round(self.end), "card_hours": round(self.card_hours, 3)},
            **{"cost": None if self.cost is None else round(self.cost, 2), "deadline_seconds": self.deadline},
            **{"late": list(self.late), "change": self.change},
            "instruments": [{**asdict(run), "card_hours": round(run.card_hours, 3)} for run in self.runs],
        }


def plan_night(
    library: Library,
    names: Sequence[str],
    *,
    card: Card | None = None,
    cards: int = 1,
    deadline: float | None = None,
    price: float | None = None,
) -> Night:
    """Plans the training of instruments.

    Args:
        library: the library.
        names: of the instruments.
        card: the type of GPU; None for the CPUs of this machine.
        cards: their number.
        deadline: seconds in which all must have ended.
        price: of a card for an hour.

    Raises:
        ConfigurationError: a configuration is invalid, or a step does not fit the card or the machine.
    """
    base = library.base_spec(dataset="")
    specs = [*([base] if base is not None else []), *(library.training_spec(name, dataset="") for name in names)]
    speeds = Speeds(library.store, library.name, library.instruments, card)
    hosts = _hosts(card, cards)
    needs = Needs(library.store, specs, hosts, speeds)
    most = library.manifest.max_concurrent

    by_name = {spec.instrument: spec for spec in specs}
    new = {name: RunRecord(library=library.name, instrument=name, run_id="", dataset="") for name in by_name}
    candidates = [needs.candidate(spec, new[name]) for name, spec in by_name.items()]

    for one in candidates:
        if not has_room(hosts, one.need):
            raise ConfigurationError(
                "no host of the plan has room for this run", where=one.name, fix=f"add {missing(hosts, one.need)}"
            )

    def runs(share_of_budget: float = 1.0, on: Sequence[Host] = hosts) -> list[Span]:
        shortened = [replace(one, seconds=share_of_budget * one.seconds) for one in candidates]
        if base is None:
            return simulate(shortened, on, start_seconds=START_SECONDS, most=most)
        first = simulate(shortened[:1], on, start_seconds=START_SECONDS)
        others = simulate(shortened[1:], on, start_seconds=START_SECONDS, most=most)
        begin = first[-1].end  # the others start from its weights
        return [*first, *(replace(span, start=begin + span.start, end=begin + span.end) for span in others)]

    planned = []
    if card is not None:
        for spec in specs:
            _check_fits(spec, card, needs.dry_run(spec))
    spans = runs()
    for span in spans:
        times, source = speeds.of(by_name[span.name], cpus=needs.cpus)
        schedule = plan_schedule(by_name[span.name].budget, step_times=times, override=by_name[span.name].override)
        share = sum(one.gpus or float(one.cpus) for one in span.share.all)
        planned.append(PlannedRun(span.name, schedule.steps, schedule.phase_1_steps, share, span.start, span.end, source))
    night = Night(
        runs=tuple(planned),
        card=None if card is None else card.name,
        cards=0 if card is None else cards,
        deadline=deadline,
        price=price,
        spans=tuple(spans),
        hosts=tuple(hosts),
    )
    if not night.late:
        return night
    assert deadline is not None
    return replace(night, change=_smallest_change(runs, deadline, card, cards))


def _check_fits(spec: TrainingSpec, card: Card, tested: DryRunResult | None) -> None:
    """Refuses a step that needs more memory than the card has, unless it may be computed in parts."""
    facts, batch, usable = measure_model(spec), StepConfig.of(spec).of_one_worker().batch, card.gib << 30
    needed = step_bytes(facts, tested, batch)
    if needed > usable and spec.batch != "auto":
        fitting = max((n for n in range(batch) if facts.step_bytes(n) * needed <= facts.step_bytes(batch) * usable), default=0)
        raise ConfigurationError(
            f"a training step needs {in_words(needed)} of memory, a {card.name} has {card.gib} GiB",
            where=spec.instrument,
            fix=f"{smaller_batch(spec, spec.workers * fitting)}; or plan with a larger card",
        )


def _smallest_change(runs: Callable[..., list[Span]], deadline: float, card: Card | None, cards: int) -> str:
    """What makes the plan end in time: more cards, or smaller budgets."""

    def end(**changes: Any) -> float:
        return max(span.end for span in runs(**changes))

    said = []
    if card is not None:
        more = next((n for n in _doubling(cards) if end(on=_hosts(card, n)) <= deadline), None)
        if more is not None:
            fewest = next(n for n in range(more // 2, more + 1) if n > cards and end(on=_hosts(card, n)) <= deadline)
            said.append(f"take {fewest} cards")
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if end(share_of_budget=middle) <= deadline else (low, middle)
    if low > 0:
        said.append(f"train {100 * low:.0f} % of each budget")
    return ", or ".join(said) or "move the deadline: starting a run takes longer than that"


def _doubling(cards: int) -> list[int]:
    return [cards * 2**n for n in range(1, 13) if cards * 2**n <= _MOST_CARDS]


def _hosts(card: Card | None, cards: int) -> list[Host]:
    """The cluster of a plan: one host with all cards, which says nothing of how they are spread, or this machine."""
    if card is not None:
        return [Host(card.name, cpus=math.inf, gpus=cards, gpu_bytes=card.gib << 30, accelerator=card.name)]
    return [Host("this machine", cpus=float(os.cpu_count() or 1), memory=psutil.virtual_memory().total)]
