"""The records that stages write to the store for one another.

::

    sources ──> dataset ──> training ──> registry ──> conversion / serving ──> report
           DatasetManifest  RunRecord    ModelCard    ConversionRecord
"""

from rave_dist.records.base import Problem, Record, now
from rave_dist.records.conversion import ConversionItem, ConversionParameters, ConversionRecord
from rave_dist.records.dataset import DatasetManifest, Rejection, Shard, SourceRecord, dataset_key
from rave_dist.records.model import Engine, Metrics, ModelCard, ModelFile
from rave_dist.records.training import RunActivity, RunRecord, RunStatus, Setback, TrainingSpec, Validation, run_record_key

__all__ = [
    "ConversionItem",
    "ConversionParameters",
    "ConversionRecord",
    "DatasetManifest",
    "Engine",
    "Metrics",
    "ModelCard",
    "ModelFile",
    "Problem",
    "Record",
    "Rejection",
    "RunActivity",
    "RunRecord",
    "RunStatus",
    "Setback",
    "Shard",
    "SourceRecord",
    "TrainingSpec",
    "Validation",
    "dataset_key",
    "now",
    "run_record_key",
]
