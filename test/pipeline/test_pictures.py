"""2D pictures from their folder to scores, by the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunetlike.core.serialization import load_json
from nnunetlike.data.imageio import format_of
from nnunetlike.run import (
    convert_png_task,
    evaluate_folder,
    plan_and_preprocess,
    plot_task_pngs,
    predict,
    run_training,
)

CASES = tuple("abcdef")
MODEL = "results/nnUNet/2d/Task501_Cells/nnUNetTrainerV2__nnUNetPlansv2.1"


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no workers: these cases are smaller than what a process costs."""
    monkeypatch.setenv("nnUNet_def_n_proc", "0")


def picture(kind: str, pixels: np.ndarray) -> Image.Image:
    """Return grey pixels in one of the forms that pictures come in."""
    if kind == "16-bit":
        return Image.fromarray(pixels.astype(np.uint16) * 200)
    image = Image.fromarray(pixels)
    if kind == "palette":
        return image.convert("RGB").quantize(64)
    return image if kind == "grey" else image.convert(kind)


def write_pictures(home: Path, kind: str, ending: str) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (home / folder).mkdir()
    for case in CASES:
        mask = np.zeros((40, 48), bool)
        top, left = rng.integers(4, 20, 2)
        mask[top : top + 16, left : left + 20] = True
        pixels = (rng.normal(90, 10, mask.shape) + 80 * mask).astype(np.uint8)
        picture(kind, pixels).save(home / "images" / f"{case}{ending}")
        Image.fromarray(mask).save(home / "labels" / f"{case}.png")


def run(main: Any, *words: object) -> None:
    assert main([str(word) for word in words]) == 0


def convert_and_plan(home: Path) -> None:
    run(
        convert_png_task.main, "-i", home / "images", "-l", home / "labels",
        "-output_task_id", 501, "-name", "Cells", "-p", 1,
    )  # fmt: skip
    run(
        plan_and_preprocess.main, "-t", 501, "-tf", 1, "-tl", 1, "--verify_dataset_integrity"
    )  # fmt: skip


def train(*options: str) -> None:
    run(
        run_training.main, "2d", "nnUNetTrainerV2", 501, 0, "--epochs=1", "--val_iterations=1",
        "--num_workers=0", "--seed=1", "--device=cpu", "--fp32", "--base_num_features=4", *options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "ending", "channels"),
    [
        ("grey", ".png", 1),
        ("16-bit", ".png", 1),
        ("RGB", ".jpg", 3),
        ("RGBA", ".png", 3),
        ("palette", ".png", 3),
        ("grey", ".tif", 1),
    ],
)
def test_pictures_of_every_kind_train_end_to_end(
    home: Path, kind: str, ending: str, channels: int
) -> None:
    write_pictures(home, kind, ending)
    convert_and_plan(home)
    plans = load_json(home / "preprocessed/Task501_Cells/nnUNetPlansv2.1_plans_2D.json")
    assert plans["num_modalities"] == channels
    train("--iterations=1")
    label = ".tif" if ending == ".tif" else ".png"
    written = {p.suffix for p in (home / MODEL / "fold_0/validation_raw").iterdir()}
    assert written == {label, ".json"}
    assert {p.name for p in (home / MODEL / "gt_niftis").iterdir()} == {
        f"{case}{label}" for case in CASES
    }


@pytest.mark.slow
def test_pictures_are_predicted_scored_and_drawn(home: Path) -> None:
    write_pictures(home, "RGB", ".png")
    convert_and_plan(home)
    train("--iterations=30", "--base_num_features=8")
    run(
        predict.main, "-i", home / "images", "-o", home / "out", "-t", 501, "-m", "2d",
        "--device", "cpu", "--disable_tta", "--num_threads_preprocessing", 0,
        "--num_threads_nifti_save", 0,
    )  # fmt: skip
    assert {p.name for p in (home / "out").glob("*.png")} == {f"{case}.png" for case in CASES}
    references = home / "raw/nnUNet_raw_data/Task501_Cells/labelsTr"
    run(
        evaluate_folder.main, "-ref", references, "-pred", home / "out", "-l", 1,
        "-num_processes", 1,
    )  # fmt: skip
    assert load_json(home / "out/summary.json")["results"]["mean"]["1"]["Dice"] > 0.8
    run(
        plot_task_pngs.main, "-t", 501, "-o", home / "drawn", "--predictions", home / "out",
        "-modality_idx", 2, "-num_processes", 1,
    )  # fmt: skip
    assert len(list((home / "drawn").iterdir())) == len(CASES)


def test_2d_images_are_planned_for_2d_only_and_3d_says_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(home, "grey", ".png")
    convert_and_plan(home)
    assert "its images are 2D, so it is planned for 2d only" in capsys.readouterr().out
    assert not list((home / "preprocessed/Task501_Cells").glob("*_plans_3D*"))
    words = ["3d_fullres", "nnUNetTrainerV2", "501", "0", "--device=cpu"]
    assert run_training.main(words) == 2
    assert "is planned for 2d only, so 3d_fullres does not exist" in capsys.readouterr().err
    assert plan_and_preprocess.main(["-t", "501", "-tf", "1", "-pl2d", "None"]) == 2
    assert "its images are 2D, so only 2d can be planned" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["Dataset501_Cells", "501"])
def test_a_task_as_v2_lays_it_out_is_planned(home: Path, spelling: str) -> None:
    write_pictures(home, "grey", ".png")
    task = home / "raw/nnUNet_raw_data/Dataset501_Cells"
    (task / "imagesTr").mkdir(parents=True)
    (task / "labelsTr").mkdir()
    for case in CASES:
        (home / f"images/{case}.png").rename(task / f"imagesTr/{case}_0000.png")
        (home / f"labels/{case}.png").rename(task / f"labelsTr/{case}.png")
    (task / "dataset.json").write_text(
        '{"channel_names": {"0": "grey"}, "labels": {"background": 0, "cell": 1}, '
        '"numTraining": 6, "file_ending": ".png"}'
    )
    run(plan_and_preprocess.main, "-t", spelling, "-tf", 1, "-tl", 1)
    assert (home / "preprocessed/Dataset501_Cells/splits_final.pkl").is_file()


@pytest.mark.parametrize("number", ["1", "2"])
def test_the_public_pictures_become_raw_tasks(home: Path, shared: Path, number: str) -> None:
    data = shared / "data"
    sources: dict[str, tuple[object, ...]] = {
        "1": ("-i", data / "ISBI2012_membrane/train/image",
              "-l", data / "ISBI2012_membrane/train/label"),
        "2": ("-i", data / "CHASEDB1", "-l", data / "CHASEDB1", "--label_suffix", "_1stHO"),
    }  # fmt: skip
    run(
        convert_png_task.main, *sources[number], "-output_task_id", number, "-name", "X", "-p", 1
    )  # fmt: skip
    task = home / f"raw/nnUNet_raw_data/Task00{number}_X"
    labels = sorted((task / "labelsTr").iterdir())
    assert len(labels) == {"1": 20, "2": 18}[number] and {p.suffix for p in labels} == {".png"}
    for path in labels[:2]:
        assert set(np.unique(format_of(path).read_label(path)[0])) == {0, 1}
