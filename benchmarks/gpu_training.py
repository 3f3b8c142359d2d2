"""Training on one GPU, without Ray: stock RAVE's step and ours, both phases, every option of ``compute``, and packed runs.

Each preset is one process (or several packed ones that start together) that warms up and then runs steps for some seconds; or
one process with several models, each on a CUDA stream of its own, in turn.
Stock is called as by ``rave train``, with TF32 and cuDNN's search, without Lightning's loop. Phase 2 counts complete cycles of
a discriminator step and its generator steps. GPU-seconds per step count the whole card, so that effective packing lowers them;
memory is the memory in use on the card, contexts included.

``--small`` runs everything on any machine, also on a CPU, with models that are too small for a measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from harness import report

from rave_dist.options import ComputeOption

SAMPLE_RATE, WINDOW, BATCH = 44100, 131072, 8
CONFIGS = {"v1": 32768, "v2_small": 40960, "v2": 73728}  # with the smallest convenient window
TOGETHER = ("tf32,fused-adam", "bf16,fused-adam", "bf16,fused-adam,cuda-graphs")
PARTS = (2, 4)
PACKED = (1, 2, 4, 8)
STREAMS = (2, 4)
PHASES = ("phase 1", "phase 2")
WARM_UP_CYCLES = 5  # enough for three steps of each kind before one is recorded


def serve(job: Mapping[str, Any]) -> None:
    """One process: for every line ``PHASE SECONDS`` on stdin, runs steps (0: a warm-up) and prints the usage."""
    import psutil
    import torch

    from rave_dist.errors import RaveDistError

    warnings.simplefilter("ignore")
    on_gpu = torch.cuda.is_available()
    try:
        device = "cuda" if on_gpu else "cpu"
        models = [stepper(job, device) for _ in range(job["streams"])]
        streams = [torch.cuda.Stream() if on_gpu and len(models) > 1 else None for _ in models]
        cycle = models[0][1]
        for line in sys.stdin:
            phase, seconds = json.loads(line)
            indices = range(1) if phase == PHASES[0] else range(cycle, 2 * cycle)
            done, cycles = 0, 0
            began = time.perf_counter()
            while cycles < (job["warm_up"] if not seconds else 1) or time.perf_counter() - began < seconds:
                for index in indices:
                    for (do, _), stream in zip(models, streams, strict=True):
                        with torch.cuda.stream(stream):  # does nothing without one
                            do(index)
                done, cycles = done + len(indices) * len(models), cycles + 1
                if on_gpu:
                    torch.cuda.synchronize()
            took = time.perf_counter() - began
            free, total = torch.cuda.mem_get_info() if on_gpu else (0, psutil.Process().memory_info().rss)
            print(json.dumps({"steps": done, "seconds": took, "memory": total - free}), flush=True)
    except (RuntimeError, RaveDistError) as error:  # out of memory, or an option that this card does not support
        print(json.dumps({"error": str(error).partition("\n")[0]}), flush=True)


def stepper(job: Mapping[str, Any], device: str) -> tuple[Callable[[int], object], int]:
    """A function that runs a numbered step, and the number of steps in a cycle of phase 2."""
    import torch

    from rave_dist.rave.config import configure
    from rave_dist.rave.models import build_model
    from rave_dist.training.evaluation.receptive_field import set_receptive_field
    from rave_dist.training.step.training_step import TrainingStep

    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = configure([job["config"]], job["override"], sample_rate=SAMPLE_RATE, channels=1)
    model = build_model(text, channels=1).to(device).train()
    set_receptive_field(model)
    cycle = int(model.update_discriminator_every)
    audio = 0.2 * torch.rand(job["batch"], 1, job["window"], device=device) - 0.1
    if job["side"] == "ours":
        if device == "cpu" and "compile" in job["options"]:
            torch.compiler.set_stance("force_eager")
        step = TrainingStep(
            model,
            phase_1_steps=cycle,
            warmup_steps=1,
            device=device,
            compute=job["options"],
            accumulation_steps=job["accumulation_steps"],
        )
        return lambda index: step(audio, index), cycle
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    optimizers = [part["optimizer"] for part in model.configure_optimizers()]
    model.optimizers = lambda: optimizers
    model.log = model.log_dict = lambda *args, **kwargs: None

    def stock(index: int) -> None:
        model.warmed_up = index >= cycle
        model.training_step(audio.clone(), index)

    return stock, cycle


def measure(job: Mapping[str, Any], *, copies: int, seconds: float, env: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Steps, seconds and memory of all copies together, by phase; or the error of one."""
    command = [sys.executable, __file__, "--serve", json.dumps(job)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})
        for _ in range(copies)
    ]
    results = {}
    try:
        for phase in PHASES:
            for part in (0.0, seconds):
                for process in processes:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.write(json.dumps([phase, part]) + "\n")
                        process.stdin.flush()
                answers = [json.loads(process.stdout.readline() or '{"error": "the process died"}') for process in processes]
                errors = [answer["error"] for answer in answers if "error" in answer]
                if errors:
                    return {**results, phase: {"error": errors[0]}}
            on_gpu = job["card"] is not None
            results[phase] = {
                "steps_per_second": sum(answer["steps"] / answer["seconds"] for answer in answers),
                "memory": (max if on_gpu else sum)(answer["memory"] for answer in answers),
            }
    finally:
        for process in processes:
            process.stdin.close()
            process.wait()
    return results


@contextlib.contextmanager
def multi_process_service() -> Iterator[dict[str, str] | None]:
    """NVIDIA's MPS for processes started with this environment; None where it is not installed."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rave-dist-mps-") as folder:
        env = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for path in env.values():
            os.mkdir(path)
        subprocess.run([control, "-d"], check=True, env={**os.environ, **env})
        try:
            yield env
        finally:
            subprocess.run([control], input="quit\n", text=True, check=False, env={**os.environ, **env})


def card() -> str | None:
    """The GPU's name, read in a separate process, because this one must not have a context on it."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip() or None


@dataclass(frozen=True)
class Variant:
    """One measurement of a configuration: accumulation steps, and models in processes or on streams of one process."""

    label: str
    options: Sequence[str] = ()
    parts: int = 1
    processes: int = 1
    mps: bool = False
    streams: int = 1


def variants(arguments: argparse.Namespace, name: str | None) -> list[Variant]:
    """The measurements of a configuration, stock first."""
    options = arguments.options
    if options is None:
        cuda_only = {"tf32", "fp16", "cuda-graphs"}
        options = [each for each in (*get_args(ComputeOption), *TOGETHER) if name or not cuda_only & set(each.split(","))]
    chosen = [Variant("stock"), Variant("ours")]
    chosen += [Variant(f"ours, {each.replace(',', ' + ')}", each.split(",")) for each in options]
    chosen += [Variant(f"ours, {n} parts", parts=n) for n in arguments.parts if n > 1]
    chosen += [Variant(f"ours, {n} streams", streams=n) for n in arguments.streams if n > 1]
    for mps in (False, True) if shutil.which("nvidia-cuda-mps-control") else (False,):
        label = ", MPS" if mps else ""
        chosen += [Variant(f"ours, {n} processes{label}", processes=n, mps=mps) for n in arguments.packed if n > 1]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--configs", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--options", nargs="*", help="options of compute, with commas between combined ones; default: all")
    parser.add_argument("--parts", nargs="*", type=int, default=list(PARTS), help="parts that a step is computed in")
    parser.add_argument("--packed", nargs="*", type=int, default=list(PACKED), help="processes on the card at once")
    parser.add_argument("--streams", nargs="*", type=int, default=list(STREAMS), help="models in one process at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each measurement")
    parser.add_argument("--small", action="store_true", help="tiny models and short measurements, to test the script")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(json.loads(arguments.serve))
        return
    name = card()
    if name is None and not arguments.small:
        raise SystemExit("there is no CUDA device; --small runs anywhere")
    rows: list[dict[str, object]] = []
    ratios: dict[str, float] = {}
    with multi_process_service() as service:
        for config in arguments.configs:
            rows += table(config, variants(arguments, name), arguments, name, service, ratios)
    report(
        f"training on one {name or 'CPU'}",
        rows,
        ratios,
        json=arguments.json,
        notes=[
            f"batches of {BATCH} x {WINDOW} samples"
            if not arguments.small
            else "tiny models, to test the script: no measurement",
            "ratios: steps of ours per second, all models together, over stock's",
            "stock: RAVE.training_step as rave train sets PyTorch up (TF32, cuDNN's search), without Lightning's loop",
            *([] if service is not None else ["MPS is not installed here"]),
        ],
    )


def table(
    config: str,
    chosen: Sequence[Variant],
    arguments: argparse.Namespace,
    name: str | None,
    service: dict[str, str] | None,
    ratios: dict[str, float],
) -> list[dict[str, object]]:
    """The rows of a configuration; its ratios are added to ``ratios``."""
    rows: list[dict[str, object]] = []
    stock: dict[str, float] = {}
    for variant in chosen:
        label, is_stock = variant.label, variant.label == "stock"
        job = {
            "config": config,
            "side": "stock" if is_stock else "ours",
            "options": variant.options,
            "accumulation_steps": variant.parts,
            "streams": variant.streams,
            "card": name,
            "batch": 2 if arguments.small else BATCH,
            "window": CONFIGS[config] if arguments.small else WINDOW,
            "override": {"CAPACITY": 4, "LATENT_SIZE": 8} if arguments.small else {},
            "warm_up": 1 if arguments.small else WARM_UP_CYCLES,
        }
        env = service if variant.mps and service is not None else {}
        print(f"{config}, {label} …", file=sys.stderr, flush=True)
        for phase, result in measure(
            job, copies=variant.processes, seconds=0.001 if arguments.small else arguments.seconds, env=env
        ).items():
            speed = result.get("steps_per_second")
            rows.append(
                {
                    "config": config,
                    "phase": phase,
                    "preset": label,
                    "steps/s": speed or result["error"],
                    "GPU-s per step" if name else "s per step": 1 / speed if speed else "",
                    "MiB": result["memory"] >> 20 if speed else "",
                }
            )
            if speed and is_stock:
                stock[phase] = speed
            elif speed and phase in stock:
                ratios[f"{config}, {phase}, {label}"] = speed / stock[phase]
    return rows


if __name__ == "__main__":
    main()
