"""The records that stages exchange through the store.

::

    sources ──> dataset ──> training ──> registry ──> conversion / serving ──> report
           DatasetManifest  RunRecord    ModelCard    ConversionRecord
"""

from rave_dist.records.base import Problem, Record, now
from rave_dist.records.conversion import (
    AllParameters,
    Controls,
    ConversionItem,
    ConversionParameters,
    ConversionRecord,
    ConversionRequest,
    Preservation,
    Treatment,
    remarks,
)
from rave_dist.records.dataset import DatasetManifest, DatasetPointer, Rejection, Shard, SourceRecord
from rave_dist.records.familiarity import OUT_OF_DEPTH, FamiliarityReference
from rave_dist.records.folders import (
    BaseFolder,
    ConversionFolder,
    DatasetFolder,
    ExportFolder,
    ExportKind,
    ModelFolder,
    RunFolder,
    checkpoint_step,
    checkpoint_steps,
)
from rave_dist.records.latent_names import NamedLatent
from rave_dist.records.lease import STORE_LEASE, LeaseRecord, library_lease
from rave_dist.records.model import (
    Engine,
    ExportRecord,
    ListeningRecord,
    Metrics,
    ModelCard,
    ModelFile,
    PastCredit,
    PlayedLevels,
    Publication,
)
from rave_dist.records.passed_over import PassedOver
from rave_dist.records.run import (
    DRY_RUNS,
    BaseRecord,
    BestWeights,
    CheckpointInfo,
    DryRunResult,
    LossRow,
    NotFiniteReport,
    RunMetrics,
    RunResult,
    ValidationRow,
    WindowSource,
)
from rave_dist.records.training import (
    Continuation,
    Rollback,
    RunActivity,
    RunRecord,
    RunStatus,
    TrainingSpec,
    Validation,
    run_record_key,
)
from rave_dist.records.uploads import UPLOADS, UploadedRecording, UploadedRecordings, split_uploads, uploads_key
from rave_dist.records.verdict import Verdict, VerdictWord

__all__ = [
    "DRY_RUNS",
    "OUT_OF_DEPTH",
    "STORE_LEASE",
    "UPLOADS",
    "AllParameters",
    "BaseFolder",
    "BaseRecord",
    "BestWeights",
    "CheckpointInfo",
    "Continuation",
    "Controls",
    "ConversionFolder",
    "ConversionItem",
    "ConversionParameters",
    "ConversionRecord",
    "ConversionRequest",
    "DatasetFolder",
    "DatasetManifest",
    "DatasetPointer",
    "DryRunResult",
    "Engine",
    "ExportFolder",
    "ExportKind",
    "ExportRecord",
    "FamiliarityReference",
    "LeaseRecord",
    "ListeningRecord",
    "LossRow",
    "Metrics",
    "ModelCard",
    "ModelFile",
    "ModelFolder",
    "NamedLatent",
    "NotFiniteReport",
    "PassedOver",
    "PastCredit",
    "PlayedLevels",
    "Preservation",
    "Problem",
    "Publication",
    "Record",
    "Rejection",
    "Rollback",
    "RunActivity",
    "RunFolder",
    "RunMetrics",
    "RunRecord",
    "RunResult",
    "RunStatus",
    "Shard",
    "SourceRecord",
    "TrainingSpec",
    "Treatment",
    "UploadedRecording",
    "UploadedRecordings",
    "Validation",
    "ValidationRow",
    "Verdict",
    "VerdictWord",
    "WindowSource",
    "checkpoint_step",
    "checkpoint_steps",
    "library_lease",
    "now",
    "remarks",
    "run_record_key",
    "split_uploads",
    "uploads_key",
]
