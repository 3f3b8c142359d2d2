"""Records are frozen, live as JSON, forgive newer keys, and a run's identity is what affects its result."""

from __future__ import annotations

import pickle
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rave_dist import records
from rave_dist.errors import MissingKeyError, StoreError
from rave_dist.identity import canonical_json
from rave_dist.options import Budget, CheckpointPolicy, Recovery
from rave_dist.records import (
    BaseFolder,
    BestWeights,
    ConversionFolder,
    DatasetFolder,
    ExportFolder,
    ExportRecord,
    LossRow,
    ModelFile,
    ModelFolder,
    Record,
    Rejection,
    Rollback,
    RunFolder,
    RunMetrics,
    RunResult,
    Shard,
    TrainingSpec,
    Validation,
    ValidationRow,
    now,
)
from rave_dist.storage.store import Store
from tests.sample_records import dataset_manifest, model_card, run_record, source_record

SPEC = TrainingSpec(
    library="drums",
    instrument="tabla",
    dataset="0123456789ab",
    config=("v2", "causal"),
    override={"CAPACITY": 48},
    sample_rate=44100,
    channels=1,
    budget=Budget(steps=1000),
    seed=7,
)

SOURCE = source_record(
    seconds=10.0,
    used_seconds=8.5,
    samples=374850,
    spans=((0, 100), (200, 374850)),
    rejections=(Rejection(source="/recordings/take.wav", seconds=1.5, reason="silent"),),
)

MANIFEST = dataset_manifest(
    id="0123456789ab",
    instrument="tabla",
    sources=(SOURCE,),
    rejected=SOURCE.rejections,
    shards=(Shard(key="datasets/tabla/x/part-0.parquet", source_ids=("take",), bytes=10, seconds=8.5),),
    used_seconds=8.5,
)

CARD = model_card(
    name="tabla",
    version="ba9876543210",
    library="drums",
    run_id=SPEC.run_id,
    files={"offline": ModelFile(key="models/tabla/x/tabla.ts", sha256="00", bytes=5)},
)

RUN = run_record(library="drums", instrument="tabla", run_id=SPEC.run_id)

RESULT = RunResult(
    phase=2,
    step=9,
    best_step=8,
    steps=9,
    phase_1_steps=6,
    phase_1=BestWeights(step=6, distance=2.0),
    complete=True,
    validation=Validation(first=9.0, best=1.0, last=1.5),
    rollbacks=(Rollback(step=3, what="a loss", rate=0.5),),
    seconds=1.0,
)

METRICS = RunMetrics(
    train=(LossRow(step=1, phase=1, values={"fullband_spectral_distance": 2.0, "regularization": None}),),
    validation=(ValidationRow(step=0, phase=1, held_out=9.0, training=None),),
    steps=9,
    phase_1_steps=6,
    window=65536,
)

EXPORT = ExportRecord(
    offline="tabla.ts",
    streaming="tabla_streaming.ts",
    latents=4,
    latent_size=16,
    hop=2048,
    receptive_field=(27117, 26428),
    delay=26720,
)


@pytest.mark.parametrize("record", [SPEC, MANIFEST, CARD, RUN, RESULT, METRICS, EXPORT], ids=lambda r: type(r).__name__)
class TestEveryRecord:
    def test_survives_json(self, record: Record) -> None:
        assert type(record).model_validate_json(canonical_json(record.to_json())) == record

    def test_survives_pickling(self, record: Record) -> None:
        assert pickle.loads(pickle.dumps(record)) == record

    def test_is_frozen(self, record: Record) -> None:
        with pytest.raises(ValidationError):
            setattr(record, next(iter(type(record).model_fields)), "other")

    def test_forgives_a_key_that_a_newer_version_wrote(self, record: Record) -> None:
        assert type(record).model_validate({**record.to_json(), "of_the_future": 1}) == record


def test_a_card_reads_with_offline_alone_and_is_addressed_by_name_and_version() -> None:
    assert CARD.reference == "tabla@ba9876543210"
    assert CARD.key == "models/tabla/ba9876543210"


@pytest.mark.parametrize("cap", [{}, {"steps": 1000}, {"hours": 4}])
def test_patience_is_part_of_a_runs_identity(cap: dict[str, Any]) -> None:
    budgets = [Budget.model_validate({**cap, "until": {"patience": patience}}) for patience in (5, 6)]
    ids = {SPEC.model_copy(update={"budget": budget}).run_id for budget in budgets}
    assert len(ids | {SPEC.run_id}) == 3
    assert Budget.model_validate(budgets[0].model_dump(mode="json")) == budgets[0]


def test_a_budget_has_an_end() -> None:
    with pytest.raises(ValidationError, match="give hours or steps"):
        Budget.model_validate({})


class TestRecordsInAStore:
    def test_what_is_saved_is_loaded(self, local_store: Store) -> None:
        RESULT.save(local_store, SPEC.folder.result)
        assert RunResult.load(local_store, SPEC.folder.result) == RESULT

    def test_what_is_missing_is_told_from_what_is_wrong(self, local_store: Store) -> None:
        with pytest.raises(MissingKeyError):
            RunResult.load(local_store, SPEC.folder.result)
        local_store.write_json(SPEC.folder.result, {**RESULT.to_json(), "validation": {"best": "near"}})
        with pytest.raises(StoreError, match=r"not a valid RunResult \(validation\.best: ") as wrong:
            RunResult.load(local_store, SPEC.folder.result)
        assert wrong.value.where == local_store.address(SPEC.folder.result)
        assert "delete it" in wrong.value.fix


def test_files_of_folders_have_names_of_their_own() -> None:
    for folder in (
        RunFolder("r"),
        ModelFolder("m", "tabla"),
        ExportFolder("e", "tabla"),
        DatasetFolder("d"),
        BaseFolder("b"),
        ConversionFolder("c"),
    ):
        values = [getattr(folder, name) for name in vars(type(folder)) if not name.startswith("_")]
        paths = [value for value in values if isinstance(value, str)]
        assert len(set(paths)) == len(paths) > 0
        assert all(path.startswith(f"{folder.root}/") for path in paths)


def test_a_folder_may_be_local(tmp_path: Path) -> None:
    assert Path(RunFolder(tmp_path / "run").weights).parent == tmp_path / "run"


def test_where_records_lie() -> None:
    assert SPEC.run_key == f"runs/drums/tabla/{SPEC.run_id}"
    assert SPEC.folder == RUN.folder == CARD.run_folder
    assert RUN.key == "runs/drums/tabla/record.json"
    assert MANIFEST.key == "datasets/tabla/0123456789ab"
    assert DatasetFolder.latest("tabla", "drums") == "datasets/tabla/latest/drums.json"
    assert CARD.folder.card == "models/tabla/ba9876543210/card.json"
    assert CARD.folder.file("streaming") == CARD.folder.streaming == "models/tabla/ba9876543210/tabla_streaming.ts"
    assert ModelFolder.publication("tabla", 7) == "models/tabla/publications/00000007.json"
    assert ModelFolder.versions() == "models"


def test_every_second_of_a_dataset_is_used_or_rejected() -> None:
    assert MANIFEST.seconds == pytest.approx(10.0)
    assert SOURCE.used_seconds + sum(r.seconds for r in SOURCE.rejections) == pytest.approx(SOURCE.seconds)


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": CheckpointPolicy(minutes=1)},
        {"checkpoint": CheckpointPolicy(steps=10)},
        {"recover": Recovery(rate=0.1)},
        {"credit": {"performer": "someone"}},
        {"exports": ("arrays",)},
        {"metrics": ("crest",)},
        {"losses": {}},
    ],
)
def test_a_run_is_the_same_run_whatever_saves_or_credits_it(change: dict[str, Any]) -> None:
    assert SPEC.model_copy(update=change).run_id == SPEC.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"instrument": "rebana"},
        {"dataset": "ffffffffffff"},
        {"config": ("v2",)},
        {"override": {"CAPACITY": 49}},
        {"override": {}},
        {"sample_rate": 48000},
        {"channels": 2},
        {"window": 131072},
        {"batch": 4},
        {"budget": Budget(steps=1001)},
        {"budget": Budget(hours=1)},
        {"seed": 8},
        {"base": "eeeeeeeeeeee"},
        {"augment": {}},
        {"compute": ("bf16",)},
        {"augment": {"mangle": 0.8, "gain": 0.5}},
        {"losses": {"level": 0.5}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_affects_the_result_makes_another_run(change: dict[str, Any]) -> None:
    assert SPEC.model_copy(update=change).run_id != SPEC.run_id


def test_every_field_of_a_spec_is_decided_on() -> None:
    # A new field changes the ids of all runs unless it is left out of them: think, then add it here.
    affecting = {"library", "instrument", "dataset", "config", "override", "sample_rate", "channels"}
    affecting |= {"window", "batch", "budget", "seed", "base", "freeze_encoder", "augment", "losses", "compute", "continues"}
    assert set(TrainingSpec.model_fields) == affecting | set(TrainingSpec.NOT_IDENTITY)
    assert {"checkpoint", "recover", "placement", "workers", "credit", "exports", "metrics"} == set(TrainingSpec.NOT_IDENTITY)


def test_an_id_is_the_same_in_every_version() -> None:
    # An id that changes makes a new run of every instrument that was trained before.
    assert SPEC.run_id == "dfe11f550d38"


@pytest.mark.parametrize("values", [{}, {"hours": 0}, {"hours": -1}, {"steps": 1}, {"minutes": 5}])
def test_a_budget_is_hours_or_steps(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Budget(**values)


def test_checkpoints_come_every_ten_minutes_unless_told_otherwise() -> None:
    assert CheckpointPolicy().every_seconds == 600
    assert CheckpointPolicy(minutes=0.5).every_seconds == 30
    assert CheckpointPolicy(steps=100).every_seconds is None
    with pytest.raises(ValidationError):
        CheckpointPolicy(minutes=1, steps=1)


def test_now_is_utc_and_says_so() -> None:
    moment = datetime.fromisoformat(now())
    assert moment.utcoffset() is not None
    assert not moment.utcoffset()


def test_all_records_are_frozen() -> None:
    kinds = [kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, Record)]
    assert len(kinds) > 15
    for kind in kinds:
        if kind is not Record:
            assert kind.model_config["frozen"], kind
