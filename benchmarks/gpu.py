"""What a GPU makes of training and prediction: parts in processes of their own, within minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, report

TASK, FOLD = "Task102_Patches", "all"
UNET, PLUS = "nnUNetTrainerV2", "nnUNetPlusPlusTrainerV2"
LOADS = ("dummy", "cpu", "device")
PARTS = ("ceilings", "steps", *(f"epoch {t} {load}" for t in (UNET, PLUS) for load in LOADS),
         "predict", "candidates", "compiled")  # fmt: skip
"""In this order; what takes longest and may fail comes last."""

MINUTES = 9.5
NO_DEVICE = 4
MARK = "row: "
"""Begins a line of a part that holds a row."""


@dataclass(frozen=True)
class Settings:
    """Sizes of what is measured."""

    device: str
    patch: tuple[int, int, int] = (128, 128, 128)
    batch: int = 2
    features: int = 32
    pools: int = 5
    cases: int = 6
    case: tuple[int, int, int] = (200, 220, 220)
    """Voxels of a preprocessed case."""

    steps: int = 40
    warmup: int = 10
    image: tuple[int, int, int] = (300, 512, 512)
    """Voxels of the case that is predicted, 1 x 0.8 x 0.8 mm; the network works at 1 mm."""

    side: int = 8192
    """Of the matrices whose product is the ceiling."""

    compiled: bool = True


def tiny(device: str) -> Settings:
    """Return sizes that take seconds on a CPU."""
    return Settings(
        device=device, patch=(16, 16, 16), features=4, pools=2, cases=5, case=(20, 22, 24),
        steps=2, warmup=1, image=(20, 32, 32), side=128, compiled=False,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure."""

    what: str
    seconds: float | None = None
    operations_per_second: float | None = None
    ceiling: str = ""
    """Kind of matrix product that it is compared with."""

    gpu_peak: float | None = None
    host_peak: float | None = None
    note: str = ""


def run(
    settings: Settings,
    to_json: Path | None,
    to_markdown: Path | None,
    say: Callable[[str], None] = print,
    parts: Sequence[str] = PARTS,
) -> int:
    """Measure all parts, print a table, write it where asked.

    Returns:
        0; 1 if a part failed or came too late; 4 without the device.
    """
    if settings.device.startswith("cuda") and not _has_cuda():
        say("gpu: torch sees no CUDA device here, so nothing is measured; --device cpu --size tiny "
            "tries the same code on a CPU")  # fmt: skip
        return NO_DEVICE
    about = machine.description()
    deadline = time.monotonic() + 60 * MINUTES
    rows: list[Row] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-gpu-") as home:
        for part in ("task", *parts):
            if part == "compiled" and not settings.compiled:
                continue
            found, problem = _part(part, settings, Path(home), deadline - time.monotonic())
            rows += found
            if problem:
                missing[part] = problem
                say(f"{part}: {problem}")
    text = markdown(about, settings, rows, missing)
    say(text)
    if to_json:
        content = {"machine": about, "settings": asdict(settings), "missing": missing,
                   "rows": [asdict(row) for row in rows]}  # fmt: skip
        to_json.write_text(json.dumps(content, indent=1))
    if to_markdown:
        report.put(to_markdown, "gpu", text)
    return 1 if missing else 0


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _part(part: str, settings: Settings, home: Path, room_s: float) -> tuple[list[Row], str]:
    """Return the rows of a part, and what went wrong, if anything."""
    if room_s <= 0:
        return [], f"left out: {MINUTES:g} minutes are over"
    words = [sys.executable, "-m", "benchmarks.gpu_parts", part, json.dumps(asdict(settings))]
    places = {"nnUNet_raw_data_base": "raw", "nnUNet_preprocessed": "preprocessed",
              "RESULTS_FOLDER": "results"}  # fmt: skip
    env = {**os.environ, **{key: str(home / name) for key, name in places.items()}}
    log = home / "log"
    try:
        with log.open("w") as errors:
            done = subprocess.run(
                [*words, str(home)], env=env, stdout=subprocess.PIPE, stderr=errors, text=True,
                timeout=room_s, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
        text = output.decode() if isinstance(output, bytes) else output
        return _rows(text), f"not finished within {MINUTES:g} minutes"
    lines = log.read_text(errors="replace").strip().splitlines()
    return _rows(done.stdout), (lines or ["no message"])[-1] if done.returncode else ""


def _rows(output: str) -> list[Row]:
    marked = (line for line in output.splitlines() if line.startswith(MARK))
    return [Row(**json.loads(line.removeprefix(MARK))) for line in marked]


def markdown(
    about: Mapping[str, Any], settings: Settings, rows: Sequence[Row], missing: Mapping[str, str]
) -> str:
    """Return the rows as a table, each beside the ceiling of its type."""
    ceilings = {
        row.ceiling: row.operations_per_second for row in rows if row.what.startswith("product")
    }
    patch = " x ".join(map(str, settings.patch))
    lines = [
        f"- {about['date']}, {about['processor']}, {about['cores']} cores, {about['memory_gib']} "
        f"GiB, load {about['load']}",
        f"- batches of {settings.batch} patches of {patch}, {settings.features} features",
        "",
        "| what | time | operations | share of the product | peak, device | peak, host | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate, best = row.operations_per_second, ceilings.get(row.ceiling)
        share = f"{rate / best:.1%} of {row.ceiling}" if rate and best else ""
        speed = f"{rate / 1e12:.3g} TFLOP/s" if rate else ""
        held = map(report.mebibytes, (row.gpu_peak, row.host_peak))
        cells = (row.what, report.seconds(row.seconds), speed, share, *held, row.note)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {part}: {problem}" for part, problem in missing.items())]
    return "\n".join(lines).rstrip() + "\n"
