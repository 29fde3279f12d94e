"""Make a small task of synthetic echo videos: ventricles that beat in speckle.

usage: python tools/make_ventricles.py FOLDER [--kind dropout|twins] [--videos 40] [--new_videos 4]
           [--frames 8] [--size 48] [--labelled all|ends] [--layout task|png] [--seed 0]

In `dropout` three frames after the second show nothing but speckle, so that only a memory can say
where the ventricle is. In `twins` two ventricles beat alike and the first frame alone marks one of
them, which is the labelled one. Of a network that sees frames one by one, the Dice is at most 0.28
on the frames that dropped out, and 2/3 on those after the first of twins.

FOLDER must be called TaskXXX_Name for the layout `task`, that of a raw task. The layout `png` is
that of frames as pictures: img/ID/0.png and gt/ID/0.png, without a mask where a frame has no label,
and split.json. Everything is synthetic and seeded: the same arguments give the same pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

BACKGROUND, CAVITY, WALL, MARK = 0.42, 0.12, 0.8, 1.0
WALL_WIDTH, MARK_RADIUS = 2.5, 2.8
MARGIN, APART = 13, 24
IGNORE = 2
FPS = 50.0
Image, Mask, Visible = npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.bool_]


def main() -> None:
    """Write the task named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=("dropout", "twins"), default="dropout")
    parser.add_argument("--videos", type=int, default=40, help="training videos")
    parser.add_argument("--new_videos", type=int, default=4, help="videos in imagesTs")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=48, help="pixels of a side")
    parser.add_argument("--labelled", choices=("all", "ends"), default="all",
        help="label every frame, or the first and the last")  # fmt: skip
    parser.add_argument("--layout", choices=("task", "png"), default="task")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write = make_task if args.layout == "task" else make_pictures
    write(
        args.folder, args.videos, args.new_videos, kind=args.kind, frames=args.frames,
        size=args.size, labelled=args.labelled, seed=args.seed,
    )  # fmt: skip
    print(f"wrote {args.videos} training and {args.new_videos} new videos to {args.folder}")


def clip(
    seed: int, kind: str = "dropout", frames: int = 8, size: int = 48
) -> tuple[Image, Mask, Visible]:
    """Return a video (T, H, W) in [0, 1], its masks (T, H, W), and which frames show anything (T,).

    Args:
        seed: of the video.
        kind: `dropout` or `twins`.
        frames: T, at least 6 for `dropout`.
        size: H and W.
    """
    rng = np.random.default_rng(seed)
    minor = rng.uniform(5, 7)
    axes = np.array([minor * rng.uniform(1.2, 1.5), minor])
    angle = rng.uniform(-0.5, 0.5)
    contraction, period = rng.uniform(0.15, 0.4), rng.uniform(0.8, 1.3)
    beat = 1 - contraction * (1 - np.cos(np.pi * np.arange(frames) / (frames - 1) * period)) / 2
    centres = _centres(rng, kind, size)
    speeds = [rng.uniform(-0.3, 0.3, 2) for _ in centres]
    visible = np.ones(frames, bool)
    if kind == "dropout":
        visible[rng.choice(np.arange(2, frames), 3, replace=False)] = False
    image = np.zeros((frames, size, size), np.float32)
    masks = np.zeros((frames, size, size), np.uint8)
    for t in range(frames):
        at = [centre + speed * t for centre, speed in zip(centres, speeds, strict=True)]
        echo, masks[t] = _frame(at, axes * beat[t], angle, size, marked=kind == "twins" and t == 0)
        image[t] = _speckled(echo if visible[t] else np.full_like(echo, BACKGROUND), rng)
    return image, masks, visible


def _centres(rng: np.random.Generator, kind: str, size: int) -> list[npt.NDArray[np.float64]]:
    """Return the centre (y, x) of each ventricle, the labelled one first."""
    if kind == "dropout":
        return [rng.uniform(MARGIN, size - MARGIN, 2)]
    while True:
        first, second = (rng.uniform(MARGIN, size - MARGIN, 2) for _ in range(2))
        if np.linalg.norm(first - second) > APART:
            return [first, second]


def _frame(
    centres: list[npt.NDArray[np.float64]],
    axes: npt.NDArray[np.float64],
    angle: float,
    size: int,
    *,
    marked: bool,
) -> tuple[Image, Visible]:
    """Return the echo of one frame without speckle, and the cavity of the first ventricle."""
    echo = np.full((size, size), BACKGROUND, np.float32)
    for centre in centres:
        echo[_ellipse(size, centre, axes + WALL_WIDTH, angle)] = WALL
        echo[_ellipse(size, centre, axes, angle)] = CAVITY
        if marked and centre is centres[0]:
            echo[_ellipse(size, centre, np.full(2, MARK_RADIUS), 0)] = MARK
    return echo, _ellipse(size, centres[0], axes, angle)


def _ellipse(
    size: int, centre: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], angle: float
) -> Visible:
    y, x = (grid - c for grid, c in zip(np.mgrid[:size, :size], centre, strict=True))
    along = np.cos(angle) * y + np.sin(angle) * x
    across = -np.sin(angle) * y + np.cos(angle) * x
    inside: Visible = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 < 1
    return inside


def _speckled(echo: Image, rng: np.random.Generator) -> Image:
    """Return an echo with speckle: Rayleigh, smeared over 2 x 2 pixels, and noise on top."""
    echo = echo * (0.55 + 0.45 * rng.rayleigh(0.8, echo.shape).astype(np.float32))
    echo = (echo + np.roll(echo, 1, 0) + np.roll(echo, 1, 1) + np.roll(echo, (1, 1), (0, 1))) / 4
    noisy: Image = np.clip(echo + rng.normal(0, 0.04, echo.shape), 0, 1)
    return noisy


def make_task(
    folder: Path,
    videos: int,
    new_videos: int = 0,
    *,
    kind: str = "dropout",
    frames: int = 8,
    size: int = 48,
    labelled: str = "all",
    seed: int = 0,
) -> None:
    """Write a raw task; video number n is `clip(seed + n)`, of which each is another patient."""
    ids = [f"patient{n:04d}_4CH" for n in range(videos + new_videos)]
    shown = _labelled(frames, labelled)
    for n, case_id in enumerate(ids):
        image, masks, visible = clip(seed + n, kind, frames, size)
        label = np.full_like(masks, IGNORE)
        label[shown] = masks[shown]
        part = "Tr" if n < videos else "Ts"
        _write(
            np.round(255 * image).astype(np.uint8), folder / f"images{part}/{case_id}_0000.nii.gz"
        )
        _write(label, folder / f"labels{part}/{case_id}.nii.gz")
        facts = _facts(case_id, masks, shown, visible)
        (folder / f"cases{part}").mkdir(exist_ok=True)
        (folder / f"cases{part}/{case_id}.json").write_text(json.dumps(facts, indent=1))
    (folder / "dataset.json").write_text(json.dumps(_description(folder, ids, videos), indent=1))


def _labelled(frames: int, labelled: str) -> list[int]:
    return list(range(frames)) if labelled == "all" else [0, frames - 1]


def _facts(case_id: str, masks: Mask, shown: list[int], visible: Visible) -> dict[str, Any]:
    areas = masks[shown].sum((1, 2))
    return {
        "patient": case_id.split("_")[0],
        "view": "4CH",
        "fps": FPS,
        "ed": shown[int(areas.argmax())],
        "es": shown[int(areas.argmin())],
        "labelled_frames": shown,
        "dropped_frames": np.flatnonzero(~visible).tolist(),
        "spacing_known": False,
    }


def _description(folder: Path, ids: list[str], videos: int) -> dict[str, Any]:
    return {
        "name": folder.name.partition("_")[2],
        "description": "synthetic ventricles that beat in speckle",
        "licence": "CC0",
        "tensorImageSize": "3D",
        "modality": {"0": "US"},
        "labels": {"background": 0, "LV": 1, "ignore": IGNORE},
        "video": {
            "time_axis": -1,
            "group_regex": "^(patient\\d+)_",
            "sidecar": "casesTr/{case}.json",
            "supervision": "sparse",
        },
        "numTraining": videos,
        "numTest": len(ids) - videos,
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
            for c in ids[:videos]
        ],
        "test": [f"./imagesTs/{c}.nii.gz" for c in ids[videos:]],
    }


def _write(array: npt.NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def make_pictures(
    folder: Path,
    videos: int,
    new_videos: int = 0,
    *,
    kind: str = "dropout",
    frames: int = 8,
    size: int = 48,
    labelled: str = "all",
    seed: int = 0,
) -> None:
    """Write the videos as folders of PNG frames; a mask's 1 is the cavity."""
    ids = [f"patient{n:04d}_4CH" for n in range(videos + new_videos)]
    shown = _labelled(frames, labelled)
    for n, case_id in enumerate(ids):
        image, masks, _ = clip(seed + n, kind, frames, size)
        for t in range(frames):
            _write(np.round(255 * image[t]).astype(np.uint8), folder / f"img/{case_id}/{t}.png")
            if t in shown:
                _write(masks[t], folder / f"gt/{case_id}/{t}.png")
    lists = {"train_data": ids[:videos], "val_data": [], "test_data": ids[videos:]}
    (folder / "split.json").write_text(json.dumps(lists, indent=1))


if __name__ == "__main__":
    main()
