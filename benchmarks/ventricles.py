"""Does the memory remember? Synthetic ventricles that no network without one can segment.

usage: python benchmarks/ventricles.py FOLDER [--trainers GDKVMTrainer GDKVMTrainer_framewise]
           [--kinds dropout twins] [--seeds 0 1 2] [--videos 640] [--epochs 16] [--iterations 50]
           [--batch_size 8] [--labelled all|ends] [--device cpu]

For each kind it makes a task of synthetic videos (tools/make_ventricles.py), plans it, trains on
all of them by the commands a user types, and predicts 64 new videos. It prints the mean Dice

  hidden     of frames that dropped out, or of the frames of twins after the marked one,
  visible    of all others,
  shuffled   of the hidden frames when, before each of them, the states of the videos are exchanged,
             so that each is segmented with what was remembered of another.

A network that sees frames one by one cannot have more than 0.28 (dropout) and 0.67 (twins) on
hidden frames. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nnunetlike.data.imageio import format_of
from nnunetlike.inference.cases import PrepareCase, find_cases
from nnunetlike.inference.model_bundle import load_bundle

ROOT = Path(__file__).resolve().parents[1]
FIRST_TRAINING, FIRST_NEW, NEW = 5000, 1_000_000, 64
NUMBERS = {"dropout": 27, "twins": 28}
Masks = npt.NDArray[np.bool_]


def main() -> None:
    """Run what the command line names and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path)
    add("--trainers", nargs="+", default=["GDKVMTrainer", "GDKVMTrainer_framewise"])
    add("--kinds", nargs="+", choices=NUMBERS, default=list(NUMBERS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--videos", type=int, default=640)
    add("--epochs", type=int, default=16)
    add("--iterations", type=int, default=50)
    add("--batch_size", type=int, default=8)
    add("--labelled", choices=("all", "ends"), default="all")
    add("--device", default="cpu")
    args = parser.parse_args()
    print(f"{'kind':8} {'trainer':28} seed  hidden  visible  shuffled")
    for kind in args.kinds:
        home = (args.folder / f"{kind}_{args.labelled}").resolve()
        prepare(home, kind, args.videos, args.labelled)
        for trainer in args.trainers:
            for seed in args.seeds:
                model = train(home, kind, trainer, seed, args)
                found = scores(home, kind, model)
                figures = "  ".join(f"{found[name]:.3f}" for name in found)
                print(f"{kind:8} {trainer:28} {seed:4}  {figures}", flush=True)


def tool(name: str) -> ModuleType:
    """Return a module of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def task_of(kind: str) -> str:
    """Return the name of a kind's task."""
    return f"Task{NUMBERS[kind]:03d}_{kind.capitalize()}"


def prepare(home: Path, kind: str, videos: int, labelled: str) -> None:
    """Make and plan a task, and new videos in `home / new`."""
    raw = home / "raw" / "nnUNet_raw_data" / task_of(kind)
    if not (raw / "dataset.json").is_file():
        made = tool("make_ventricles")
        made.make_task(raw, videos, kind=kind, labelled=labelled, seed=FIRST_TRAINING)
        made.make_task(home / "new", 0, NEW, kind=kind, seed=FIRST_NEW)
        run(home, "plan_and_preprocess", "-t", str(NUMBERS[kind]))


def train(home: Path, kind: str, trainer: str, seed: int, args: argparse.Namespace) -> Path:
    """Train with a seed and return the folder of the model."""
    results = home / f"seed_{seed}"
    model = results / "nnUNet" / "video2d" / task_of(kind) / f"{trainer}__nnUNetPlansv2.1"
    if not (model / "all" / "model_final_checkpoint.model").is_file():
        run(
            home, "run_training", "video2d", trainer, str(NUMBERS[kind]), "all",
            "--seed", str(seed), "--epochs", str(args.epochs),
            "--iterations", str(args.iterations), "--val_iterations", "4",
            "--batch_size", str(args.batch_size), "--num_workers", "0",
            "--device", args.device, "--disable_validation_inference", results=results,
        )  # fmt: skip
    return model


def run(home: Path, command: str, *words: str, results: Path | None = None) -> None:
    """Run a command of nnunetlike; its output goes to a log, which is shown if it fails."""
    environment = {
        **os.environ, "nnUNet_raw_data_base": str(home / "raw"),
        "nnUNet_preprocessed": str(home / "preprocessed"),
        "RESULTS_FOLDER": str(results or home / "results"),
    }  # fmt: skip
    log = home / f"{command}.log"
    with log.open("a") as stream:
        process = subprocess.run(
            [sys.executable, "-m", f"nnunetlike.run.{command}", *words],
            env=environment, stdout=stream, stderr=stream, check=False,
        )  # fmt: skip
    if process.returncode:
        sys.exit(f"{command} failed:\n{log.read_text()[-2000:]}")


def scores(home: Path, kind: str, model: Path) -> dict[str, float]:
    """Return the mean Dice of hidden and visible frames, and of hidden ones with other states."""
    bundle = load_bundle(model, ["all"])
    network: Any = bundle.network
    prepare_case = PrepareCase(bundle.plans, bundle.stage)
    cases = find_cases(home / "new" / "imagesTs", bundle.plans.modalities)
    videos = torch.from_numpy(np.stack([prepare_case(case)[0] for case in cases]))
    truth = np.stack([cavity(home / "new/labelsTs" / f"{case.case_id}.nii.gz") for case in cases])
    hidden = np.stack([hidden_frames(home, kind, case.case_id, truth.shape[1]) for case in cases])
    own, other = (predict(network, videos, hidden, shuffle=shuffle) for shuffle in (False, True))
    return {
        "hidden": dice(own[hidden], truth[hidden]),
        "visible": dice(own[~hidden], truth[~hidden]),
        "shuffled": dice(other[hidden], truth[hidden]),
    }


def cavity(path: Path) -> Masks:
    """Return the pixels (T, H, W) with label 1 of a file."""
    label, _ = format_of(path).read_label(path)
    inside: Masks = label == 1
    return inside


def hidden_frames(home: Path, kind: str, case_id: str, frames: int) -> npt.NDArray[np.bool_]:
    """Return which frames (T,) do not show by themselves what is to be segmented."""
    if kind == "twins":
        return np.arange(frames) > 0
    facts = json.loads((home / "new" / "casesTs" / f"{case_id}.json").read_text())
    return np.isin(np.arange(frames), facts["dropped_frames"])


@torch.inference_mode()
def predict(
    network: Any, videos: torch.Tensor, hidden: npt.NDArray[np.bool_], *, shuffle: bool
) -> Masks:
    """Return the masks (N, T, H, W) of videos (N, C, T, H, W), streamed together.

    With `shuffle` a frame in which anything is hidden is segmented with the state of the next
    video, and its own goes on as if it had not been.
    """
    state = network.init_state(len(videos), *videos.shape[3:])
    masks = []
    for t in range(videos.shape[2]):
        frame = videos[:, :, t]
        logits, after = network.step(frame, state)
        if shuffle and hidden[:, t].any():
            logits, _ = network.step(frame, rolled(state))
        state = after
        masks.append(logits.argmax(1).numpy() == 1)
    return np.stack(masks, axis=1)


def rolled(state: Any) -> Any:
    """Return a state in which each video has that of the one before."""
    return type(state).from_plain(
        {name: value.roll(1, 0) for name, value in state.to_plain().items()}
    )


def dice(found: Masks, truth: Masks) -> float:
    """Return the mean Dice over masks (n, H, W); all of them hold something."""
    shared = (found & truth).sum((1, 2))
    return float(np.mean(2 * shared / (found.sum((1, 2)) + truth.sum((1, 2)))))


if __name__ == "__main__":
    main()
