"""Who may import whom. The house stands on this; docs/architecture.md draws it.

::

    ray_jobs -> cli -> pipeline, check -> stages -> audio, storage, identity, library -> records -> errors
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

STAGES = ("dataset", "training", "registry", "conversion", "serving", "reports")

CORE = {
    "allocator",
    "errors",
    "exit_codes",
    "extensions",
    "identity",
    "isolated",
    "options",
    "records",
    "storage",
    "library",
    "signals",
    "suggest",
    "temporary",
}
GROUND = CORE | {"audio", "cluster", "progress", "scheduling", "time_left"}

# What each part of rave_dist may import of the others; "" is the package itself: its version and the public names.
MAY_IMPORT: dict[str, set[str]] = {
    "": {"api", "archives", "errors", "storage", "views"},
    "archives": GROUND | {"arguments", "views"},
    "arguments": GROUND | {"terminal"},
    "api": GROUND | {"arguments", "checks", "library_stages", "maintenance", "pipeline", "terminal", "views"},
    "views": GROUND | {"pipeline"},
    "errors": set(),
    "suggest": set(),
    "extensions": {"errors", "options"},
    "isolated": {"errors", "temporary"},
    "allocator": set(),
    "temporary": set(),
    "leases": {"errors", "identity", "records", "storage"},
    "identity": {"errors"},
    "options": set(),
    "records": {"errors", "identity", "options"},
    "storage": {"errors", "extensions", "identity", "temporary"},
    "library": {"errors", "extensions", "identity", "options", "records", "storage", "suggest"},
    "progress": {"records"},
    "time_left": {"records"},
    "exit_codes": set(),
    "signals": {"exit_codes"},
    "cluster": {"errors", "scheduling", "signals", "temporary"},
    "scheduling": {"errors", "suggest"},
    "audio": CORE,
    "pages": set(),
    "rave": {"errors", "records", "options", "suggest"},
    "sample_data": GROUND,
    "init_manifest": GROUND,
    **dict.fromkeys(STAGES, GROUND),
    **dict.fromkeys(("serving", "reports"), GROUND | {"pages"}),
    "training": GROUND | {"rave"},
    "registry": GROUND | {"rave"},
    "initial_weights": GROUND,
    "checks": GROUND | {"initial_weights", "on_end", "rave"},
    "maintenance": GROUND,
    "library_stages": GROUND | {"initial_weights"},
    "planning": GROUND | {"rave"},
    "submission": GROUND | {"leases"},
    "pipeline": GROUND | {"initial_weights", "checks", "leases", "library_stages", "maintenance", "on_end", "rave"},
    "on_end": {"errors", "library", "records"},
    "watch": GROUND | {"leases"},
    "doctor": GROUND | {"rave"},
    "terminal": GROUND
    | {"checks", "doctor", "init_manifest", "library_stages", "maintenance", "pipeline", "planning", "watch"},
    "cli": GROUND
    | {
        "archives",
        "checks",
        "doctor",
        "init_manifest",
        "maintenance",
        "pipeline",
        "planning",
        "submission",
        "terminal",
        "demo",
        "watch",
        "",
    },
    "__main__": {"cli", "exit_codes", "signals", "terminal"},
    "demo": GROUND | {"checks", "pipeline", "sample_data", "terminal"},
}
# The only arrows up: the service and each converted file say which version they are of.
UPWARD = {"serving": {""}, "conversion": {""}}

ABOVE_STAGES = {
    "",
    "archives",
    "initial_weights",
    "checks",
    "library_stages",
    "pipeline",
    "planning",
    "submission",
    "views",
    "watch",
    "cli",
    "demo",
}

# The doors: modules of one stage that others may import, and who they are.
DOORS: dict[str, set[str]] = {
    "dataset.read": {"training", "registry", "reports"},
    "dataset.split": {"training", "registry", "reports"},
    "registry.store": {"conversion", "serving", "reports"},
    "conversion.convert": {"serving", "reports"},
    "conversion.loading": {"serving"},  # how many models fit in memory
    "conversion.file": {"serving"},
    "conversion.inspection": {"serving"},
    "conversion.describe": {"serving", "reports"},  # results of the service name their source and model as the command's do
    "conversion.item": {"serving"},  # items that a job refuses are reported as the command reports failed ones
    "conversion.on_ray": {"serving"},  # corpus jobs are the command's own
    "conversion.corpus": {"serving"},  # and are refused where the command would refuse them
    "conversion.names": {"serving"},
}

ONLY_IN_RAVE = {"rave", "gin", "cached_conv", "torchaudio", "pytorch_lightning", "lightning"}
ONLY_IN_AUDIO = {"soundfile", "av"}
NOBODYS = {"scripts", "tests"}  # top-level packages that acids-rave's wheel leaves behind
AT_THE_TOP_OF_STAGES_ONLY = {"torch", "ray", "matplotlib", "boto3", "fastapi", "soxr", "scipy", "tensorboard"}


def _part(module: str) -> str:
    """``rave_dist.dataset.read`` belongs to ``dataset``."""
    return module.removeprefix("rave_dist").lstrip(".").partition(".")[0]


def _said(found: Any) -> str:
    return f"{found.importer}:{found.line} imports {found.imported}"


def _refused(found: Any) -> bool:
    importer, imported = _part(found.importer), _part(found.imported)
    door = found.imported.removeprefix("rave_dist.")
    if importer == imported or importer in DOORS.get(door, ()):
        return False
    if importer in ABOVE_STAGES and imported in STAGES:
        return False
    return imported not in MAY_IMPORT[importer] | UPWARD.get(importer, set())


def test_every_part_has_its_place(modules: tuple[Any, ...]) -> None:
    parts = {_part(module.name) for module in modules if module.name.startswith("rave_dist")}
    assert parts <= set(MAY_IMPORT), "say in this table what the new part may import"


def test_parts_import_only_what_is_below_them(imports: tuple[Any, ...]) -> None:
    inner = [f for f in imports if f.importer.startswith("rave_dist") and f.imported.partition(".")[0] == "rave_dist"]
    assert [_said(found) for found in inner if _refused(found)] == []


def test_jobs_only_know_the_command_line(imports: tuple[Any, ...]) -> None:
    allowed = ("rave_dist.cli", "rave_dist.__main__")
    jobs = [f for f in imports if f.importer.startswith("ray_jobs") and f.imported.startswith(("rave_dist", "ray_jobs."))]
    assert [_said(found) for found in jobs if found.imported not in allowed] == []


def test_nothing_imports_the_jobs(imports: tuple[Any, ...]) -> None:
    assert [_said(f) for f in imports if f.importer.startswith("rave_dist") and f.imported.startswith("ray_jobs")] == []


def test_ray_is_imported_where_it_is_expected(modules: tuple[Any, ...], imports: tuple[Any, ...]) -> None:
    paths = {module.name: PurePosixPath(module.path) for module in modules}

    def allowed(module: str) -> bool:
        return (
            paths[module].name.endswith("on_ray.py")
            or module in [f"rave_dist.training.{name}" for name in ("process", "train_group", "train_backend", "gauges")]
            or _part(module) in ("cluster", "serving")
            or module.startswith("ray_jobs")
        )

    assert [_said(f) for f in imports if f.imported.partition(".")[0] == "ray" and not allowed(f.importer)] == []


def test_raves_own_packages_are_behind_one_door(imports: tuple[Any, ...]) -> None:
    found = [f for f in imports if f.imported.partition(".")[0] in ONLY_IN_RAVE]
    assert [_said(f) for f in found if _part(f.importer) != "rave"] == []


def test_a_replica_never_sees_gin(imports: tuple[Any, ...]) -> None:
    """What the service and the converter import at their tops, taken as far as it goes, has neither RAVE nor the door to it."""
    reached, waiting = set(), [f.importer for f in imports if _part(f.importer) in ("serving", "conversion")]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [f.imported for f in imports if f.importer == name and f.at_top]
    assert "rave_dist.serving.app" in reached
    assert not {name for name in reached if name.partition(".")[0] in ONLY_IN_RAVE or name == "rave_dist.rave.imports"}


def test_sound_files_are_opened_in_one_place(imports: tuple[Any, ...]) -> None:
    found = [f for f in imports if f.imported.partition(".")[0] in ONLY_IN_AUDIO]
    assert [_said(f) for f in found if _part(f.importer) != "audio"] == []


def test_nobodys_packages_are_left_alone(imports: tuple[Any, ...]) -> None:
    assert [_said(f) for f in imports if f.imported.partition(".")[0] in NOBODYS] == []


def test_the_core_and_the_command_line_load_nothing_heavy_at_their_top(imports: tuple[Any, ...]) -> None:
    light = CORE | {"progress", "time_left", "terminal", "cli", "pipeline", "checks", "__main__"}
    light_modules = (f for f in imports if f.importer.startswith("rave_dist") and f.importer != "rave_dist.storage.s3")
    found = [f for f in light_modules if _part(f.importer) in light and f.at_top]
    assert [_said(f) for f in found if f.imported.partition(".")[0] in AT_THE_TOP_OF_STAGES_ONLY] == []


def test_modules_are_named_in_the_source_not_in_strings(modules: tuple[Any, ...]) -> None:
    """An import by name at run time would walk around this file."""
    import ast

    culprits = []
    for module in modules:
        for node in ast.walk(module.tree):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if call.endswith(("import_module", "__import__")) and _part(module.name) not in ("rave", "extensions", "isolated"):
                culprits.append(f"{module.name}:{node.lineno}")
    assert culprits == []


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_the_table_itself_has_no_circle(layer: str) -> None:
    """The doors lie between stages; apart from them and from the two arrows up, no part is below itself."""
    below, waiting = set(), [layer]
    while waiting:
        part = waiting.pop()
        further = (MAY_IMPORT[part] | (set(STAGES) if part in ABOVE_STAGES else set())) - below
        below |= further
        waiting += further
    assert layer not in below
    assert sum(map(len, UPWARD.values())) == 2
