"""How fast a fold would train on this machine: `--other_use fps` and `--other_use prof`.

Nothing is trained for good, and the folder of trained models is neither read nor written.

`fps` times whole training steps and writes fps.json; `prof` puts one step under torch's profiler,
prints what took longest, and writes a trace for chrome://tracing or ui.perfetto.dev.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nnunetlike.core.environment import RESULTS
from nnunetlike.core.errors import UsageError
from nnunetlike.core.resources import in_words
from nnunetlike.core.serialization import atomic_path, save_json
from nnunetlike.monitoring.console import bottleneck
from nnunetlike.networks.arithmetic import training_operations
from nnunetlike.run.command_line import CommandParser
from nnunetlike.run.fold import Fold, unpack
from nnunetlike.run.resume import build_parts
from nnunetlike.run.train_fold import batches, network_made_fast
from nnunetlike.run.training_memory import MemoryNeed, memory_errors_explained, require_memory
from nnunetlike.training.device_peak import peak_operations
from nnunetlike.training.objectives import Batch
from nnunetlike.training.performance import (
    ProcessSpeed,
    Speed,
    TrainingStep,
    profile_steps,
    profile_table,
    speed_of_all,
    time_steps,
)
from nnunetlike.training.runtime import Runtime, seed_everything

NO_USE = "none"
DEFAULT_STEPS = {"fps": 100, "prof": 1}
DEFAULT_WARMUP = {"fps": 10, "prof": 5}
FIGURES, TRACE = "fps.json", "output.prof"
MODES_OF_TRAINING = {
    "validation_only": "-val", "continue_training": "-c", "find_lr": "--find_lr"
}  # fmt: skip
MEMORY_IS = {"cuda": "allocated on the GPU", "cpu": "of this process, its workers apart"}
Row = Mapping[str, float | None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is to be measured, and how."""

    use: str
    """`fps` or `prof`."""

    steps: int
    """Steps that are timed or profiled."""

    warmup: int
    """Steps before."""

    dummy_load: bool
    """Take one batch again and again, so that no step waits for data."""

    output: Path
    """Folder of the file that is written."""


def add_measurement_options(parser: CommandParser) -> None:
    """Add the options that make a training command measure instead of train."""
    add = parser.add_argument
    uses = (NO_USE, *DEFAULT_STEPS)
    add(
        "--other_use",
        type=str.lower,
        choices=uses,
        default=NO_USE,
        help="fps: time training steps; prof: profile one. Trains nothing, leaves results alone",
    )
    add(
        "--steps", type=int, metavar="N", help="with --other_use: steps to measure; fps 100, prof 1"
    )
    add(
        "--warmup",
        type=int,
        metavar="N",
        help="with --other_use: steps before those; fps 10, prof 5",
    )
    add(
        "--dummy_load",
        action="store_true",
        help="with --other_use: repeat one batch instead of loading data",
    )
    add("--output", type=Path, metavar="DIR", help="with --other_use: where fps.json goes; here")


def measurement_from(args: argparse.Namespace) -> Measurement | None:
    """Return what a command line asks to measure; None if it asks to train.

    Raises:
        UsageError: options contradict one another, or the output would go to the results.
    """
    given = [name for name in ("steps", "warmup", "output") if getattr(args, name) is not None]
    given += ["dummy_load"] if args.dummy_load else []
    if args.other_use == NO_USE:
        if given:
            raise UsageError(
                f"--{given[0]} says how to measure; give --other_use fps or prof too, or leave it "
                "out"
            )
        return None
    for name, option in MODES_OF_TRAINING.items():
        if getattr(args, name):
            raise UsageError(f"--other_use {args.other_use} does not train; leave out {option}")
    return Measurement(
        use=args.other_use,
        steps=_at_least(1, "steps", args.steps, DEFAULT_STEPS[args.other_use]),
        warmup=_at_least(0, "warmup", args.warmup, DEFAULT_WARMUP[args.other_use]),
        dummy_load=args.dummy_load,
        output=_folder_for_figures(args.output or Path()),
    )


def _at_least(least: int, name: str, asked: int | None, default: int) -> int:
    if asked is not None and asked < least:
        raise UsageError(f"--{name} {asked}: give {least} or more")
    return default if asked is None else asked


def _folder_for_figures(folder: Path) -> Path:
    results = RESULTS.setting()
    folder = folder.expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; give a folder")
    if folder.resolve().is_relative_to(results.root.resolve()):
        raise UsageError(
            f"{folder} lies in the folder of trained models ({results.variable}), which a "
            "measurement leaves alone. Give another folder with --output"
        )
    return folder


def measure(fold: Fold, runtime: Runtime, wanted: Measurement) -> None:
    """Measure training steps of a fold; the main process prints and writes what was found.

    Raises:
        ResourceError: memory cannot suffice, or ran out.
    """
    if runtime.is_main:
        wanted.output.mkdir(parents=True, exist_ok=True)
        for note in fold.notes:
            logger.warning("%s", note)
    seed_everything(fold.run.seed, deterministic=fold.run.deterministic)
    parts = build_parts(fold, runtime, None)
    need = MemoryNeed.of(fold, runtime, sum(p.numel() for p in parts.network.parameters()))
    if runtime.is_main:
        require_memory(need, ignore=fold.run.ignore_memory_estimate)
    clip_norm = fold.run.recipe.optimizer.clip_norm
    with (
        memory_errors_explained(need),
        network_made_fast(fold, runtime, parts.objective, wanted.warmup + wanted.steps),
        _on_device(fold, runtime, wanted) as ready,
    ):
        step = TrainingStep(parts.objective, parts.optimizer, runtime, clip_norm)
        if wanted.use == "fps":
            _time(fold, runtime, wanted, step, ready)
        else:
            _profile(fold, runtime, wanted, step, ready)


@contextmanager
def _on_device(fold: Fold, runtime: Runtime, wanted: Measurement) -> Iterator[Iterator[Batch]]:
    """Give endless batches as in training; all processes meet before each step as there."""
    if wanted.dummy_load:
        alone = replace(fold, run=replace(fold.run, workers=0))
        with batches(alone, runtime, 0) as (training, _):
            yield _repeated(runtime.to_device(next(training)), runtime)
        return
    if not fold.run.use_compressed_data:
        if runtime.is_main:
            unpack(fold)
        runtime.meet("unpacked")
    with batches(fold, runtime, 0) as (training, _):
        yield (batch for batch in runtime.feed(training) if not runtime.any(False))


def _repeated(batch: Batch, runtime: Runtime) -> Iterator[Batch]:
    while not runtime.any(False):
        yield batch


def _time(
    fold: Fold, runtime: Runtime, wanted: Measurement, step: TrainingStep, ready: Iterator[Batch]
) -> None:
    times = time_steps(step, ready, runtime.device, steps=wanted.steps, warmup=wanted.warmup)
    speed = speed_of_all(times, runtime)
    if not runtime.is_main:
        return
    figures = _figures(fold, runtime, wanted, speed)
    path = wanted.output / FIGURES
    save_json(figures | {"skipped_steps": step.skipped}, path)
    print(describe(figures))
    if step.skipped:
        print(f"  {step.skipped} steps were not finite and did not change the weights")
    print(f"  written to {path}")


def _profile(
    fold: Fold, runtime: Runtime, wanted: Measurement, step: TrainingStep, ready: Iterator[Batch]
) -> None:
    found = profile_steps(
        step,
        ready,
        runtime.device,
        steps=wanted.steps,
        warmup=wanted.warmup,
        watch=runtime.is_main,
    )
    if found is None:
        return
    path = wanted.output / TRACE
    print(_headline(fold, wanted, _steps(wanted, "profiled")))
    print(profile_table(found, runtime.device))
    with atomic_path(path) as temporary:
        found.export_chrome_trace(str(temporary))
    print(f"trace for chrome://tracing or https://ui.perfetto.dev: {path}")


def _figures(fold: Fold, runtime: Runtime, wanted: Measurement, speed: Speed) -> dict[str, Any]:
    """Return the content of fps.json."""
    operations = training_operations(
        fold.run.recipe.network, fold.network_task, fold.stage.input_size
    )
    rate = operations * speed.fps
    peak = peak_operations(runtime.device, runtime.precision)
    return {
        "headline": _headline(fold, wanted, _steps(wanted, "timed")),
        "fps": speed.fps,
        "fps_per_process": [process.fps for process in speed.processes],
        "batch_size": speed.samples,
        "mean_s": speed.mean_s,
        "min_s": min(process.min_s for process in speed.processes),
        "max_s": max(process.max_s for process in speed.processes),
        "processes": [_process_figures(process) for process in speed.processes],
        "world_size": runtime.world_size,
        "operations_per_sample": operations,
        "operations_per_second": rate,
        "peak_operations_per_second": None if peak is None else peak * runtime.world_size,
        "share_of_peak": None if peak is None else rate / (peak * runtime.world_size),
        "device": str(runtime.device),
        "device_name": _device_name(runtime.device),
        "precision": runtime.precision,
        "torch": torch.__version__,
        "trainer": fold.run.recipe.name,
        "configuration": fold.run.configuration,
        "task": fold.run.task,
        "fold": fold.run.fold,
        "patch_size": list(fold.stage.input_size),
        "workers": fold.run.workers,
        "augment_on": fold.run.augment_on,
        "steps": wanted.steps,
        "warmup": wanted.warmup,
        "dummy_load": wanted.dummy_load,
    }


def _process_figures(process: ProcessSpeed) -> dict[str, float | None]:
    plain = {"fps": process.fps, **asdict(process)}
    return {name: None if math.isnan(value) else value for name, value in plain.items()}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _headline(fold: Fold, wanted: Measurement, what: str) -> str:
    run = fold.run
    load = ", one batch repeated (--dummy_load)" if wanted.dummy_load else ""
    return (
        f"{run.recipe.name}, {run.configuration}, {run.task}, fold {run.fold}: "
        f"{what} after {wanted.warmup} to warm up{load}"
    )


def _steps(wanted: Measurement, done: str) -> str:
    return f"{wanted.steps} step{'s' if wanted.steps > 1 else ''} {done}"


def describe(figures: dict[str, Any]) -> str:
    """Return the content of fps.json in words."""
    processes = figures["processes"]
    patch = " x ".join(map(str, figures["patch_size"]))
    held = MEMORY_IS["cuda" if figures["device"].startswith("cuda") else "cpu"]
    many = len(processes) > 1
    rows = [
        ("device", f"{figures['device_name']}, {figures['precision']}"),
        ("batch", f"{_batch(processes)} patches of {patch}"),
        *(_lines_of_all(processes) if many else _lines_of_one(processes[0], held)),
        ("arithmetic", _arithmetic(figures)),
        ("FPS per process", ", ".join(f"{process['fps']:.2f}" for process in processes)),
        ("FPS of all", f"{figures['fps']:.2f}"),
    ]
    return "\n".join([figures["headline"], *(f"  {title:<17}{text}" for title, text in rows)])


def _batch(processes: Sequence[Row]) -> str:
    sizes = [f"{process['samples']:.0f}" for process in processes]
    total = sum(process["samples"] or 0 for process in processes)
    return sizes[0] if len(sizes) == 1 else f"{' + '.join(sizes)} = {total:.0f}"


def _lines_of_one(process: Row, held: str) -> list[tuple[str, str]]:
    return [
        ("step", _step_text(process)),
        ("of which", f"{_parts_text(process, 'data')} ({bottleneck(process)})"),
        ("peak memory", f"{_memory_text(process)} {held}"),
    ]


def _lines_of_all(processes: Sequence[Row]) -> list[tuple[str, str]]:
    return [
        (
            f"process {rank}",
            f"{_step_text(p)}; {_parts_text(p, 'data and others')}; peak {_memory_text(p)}",
        )
        for rank, p in enumerate(processes)
    ]


def _step_text(process: Row) -> str:
    mean, least, most = (process[name] for name in ("mean_s", "min_s", "max_s"))
    return f"mean {mean:.4f} s, min {least:.4f} s, max {most:.4f} s"


def _parts_text(process: Row, awaited: str) -> str:
    wait, compute, mean = (process[name] or 0.0 for name in ("wait_s", "compute_s", "mean_s"))
    return (
        f"{wait:.4f} s ({wait / mean:.1%}) waiting for {awaited}, "
        f"{compute:.4f} s ({compute / mean:.1%}) computing"
    )


def _memory_text(process: Row) -> str:
    peak = process["peak_bytes"]
    return "unknown" if peak is None else in_words(peak)


def _arithmetic(figures: Mapping[str, Any]) -> str:
    share, device = figures["share_of_peak"], figures["device_name"]
    of_peak = (
        f"the peak of this device ({device}) is not known"
        if share is None
        else f"{share:.1%} of the peak of {device}"
    )
    rate, each = figures["operations_per_second"], figures["operations_per_sample"]
    return f"{_operations(rate)}/s ({_operations(each)} per patch); {of_peak}"


def _operations(count: float) -> str:
    for unit, factor in (("TFLOP", 1e12), ("GFLOP", 1e9)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count / 1e6:.4g} MFLOP"
