"""The outcome of a conversion, summed up as its results come: of a hundred thousand, only those to look at are kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rave_dist.conversion.corpus import Plan
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.preserved import Medians
from rave_dist.records import ConversionItem, ConversionRecord, now


@dataclass
class Summary:
    """Counts of outcomes.

    ``seconds`` is the audio converted this time; ``named`` are the items that the record names; ``medians`` are those of kept
    pitch and rhythm.
    """

    count: int = 0
    converted: int = 0
    skipped: int = 0
    out_of_depth: int = 0
    seconds: float = 0.0
    named: list[ConversionItem] = field(default_factory=list)
    medians: Medians = field(default_factory=Medians)

    def add(self, outcome: Outcome) -> None:
        """Adds an outcome."""
        item = outcome.item
        self.count += 1
        self.skipped += outcome.skipped
        if not outcome.skipped and item.state != "failed":
            self.converted += 1
            self.seconds += item.seconds
        self.out_of_depth += item.is_out_of_depth
        self.medians.add(item)
        if item.problems or item.other_format or item.notes:
            self.named.append(item)

    def copy(self) -> Summary:
        """Another one, which starts with the same."""
        return replace(self, named=list(self.named), medians=self.medians.copy())

    def record(self, plan: Plan) -> ConversionRecord:
        """The record of the plan whose outcomes these are."""
        items = sorted(self.named, key=lambda item: item.source)
        return ConversionRecord(
            id=plan.id,
            model=plan.card.reference,
            parameters=plan.parameters,
            converted=self.converted,
            skipped=self.skipped,
            failed=tuple(item for item in items if item.state == "failed"),
            salvaged=tuple(item for item in items if item.state == "salvaged"),
            silent=tuple(item for item in items if item.silent),
            clipped=tuple(item for item in items if item.clipped),
            other_format=tuple(item for item in items if item.other_format),
            out_of_depth=self.out_of_depth,
            seconds=round(self.seconds, 6),  # the same in any order of completion
            passed_over=plan.passed_over,
            notes=(*plan.notes, *(f"{item.source}: {note}" for item in items for note in item.notes)),
            preserved=self.medians.preserved,
            created_at=now(),
        )
