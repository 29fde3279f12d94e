"""Folders of frames to raw tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import VideoFacts
from nnunetlike.run.convert_png_video_task import main

NIFTI = format_of(Path("x.nii.gz"))
T, SIZE = 11, (16, 24)
NAMES = ("patient0001_2CH", "patient0001_4CH", "patient0002_2CH", "patient0003_4CH")


def save(pixels: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def mask(t: int) -> Any:
    """A cavity that is largest in frame 7 and smallest in frame 0."""
    label = np.zeros(SIZE, np.uint8)
    label[2 : 6 + min(t, 14 - t), 4:12] = 1
    return label


@pytest.fixture
def published(home: Path) -> Path:
    """The published layout, 11 frames so that names sort wrongly as text."""
    folder = home / "camus_png"
    for n, name in enumerate(NAMES):
        for t in range(T):
            save(np.full(SIZE, 20 * t + n, np.uint8), folder / "img" / name / f"{t}.png")
            save(mask(t), folder / "gt_lv" / name / f"{t}.png")
    lists = {"train_data": NAMES[:2], "val_data": NAMES[2:3], "test_data": NAMES[3:]}
    (folder / "split.json").write_text(json.dumps(lists))
    return folder


def convert(*words: object) -> int:
    return main([str(w) for w in (*words, "-output_task_id", 29, "-p", 0)])


def parts(folder: Path) -> tuple[object, ...]:
    return "--images", folder / "img", "--masks", folder / "gt_lv"


def task(home: Path) -> Path:
    return home / "raw" / "nnUNet_raw_data" / "Task029_Frames"


def facts(home: Path, case: str) -> VideoFacts:
    return VideoFacts.load(task(home) / "casesTr" / f"{case}.json")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.rpartition("error: ")[2].strip()


def test_the_published_layout_is_converted_in_the_order_of_numbers(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("-i", published) == 0
    spec = DatasetSpec.load(task(home) / "dataset.json")
    assert (spec.training, spec.test) == (NAMES[:3], NAMES[3:])
    image, grid = NIFTI.read([task(home) / "imagesTr" / f"{NAMES[1]}_0000.nii.gz"])
    np.testing.assert_array_equal(image[0, :, 0, 0], 20 * np.arange(T) + 1)
    assert image.shape == (1, T, *SIZE)
    assert grid.spacing == (1.0, 1.0, 1.0)
    label, _ = NIFTI.read_label(task(home) / "labelsTr" / f"{NAMES[1]}.nii.gz")
    np.testing.assert_array_equal(label, [mask(t) for t in range(T)])
    assert facts(home, NAMES[1]) == VideoFacts(
        patient="patient0001", labelled_frames=tuple(range(T)), view="4CH", ed=7, es=0,
        spacing_known=False, split="train",
    )  # fmt: skip
    content = json.loads((task(home) / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "LV": 1, "ignore": 2}
    assert content["video"]["supervision"] == "all"
    assert (
        "4 videos of 3 patients (2 training, 1 validation, 1 test), 44 labelled frames of 44, "
        "views 2 2CH, 2 4CH; supervision: all" in capsys.readouterr().out
    )


def test_frames_without_mask_are_ignored_and_diastole_is_not_assumed(
    home: Path, published: Path
) -> None:
    for t in (1, 2, 3):
        (published / "gt_lv" / NAMES[0] / f"{t}.png").unlink()
    assert convert(*parts(published)) == 0
    found = facts(home, NAMES[0])
    assert found.labelled_frames == (0, *range(4, T))
    assert (found.ed, found.es, found.split) == (None, None, None)
    label, _ = NIFTI.read_label(task(home) / "labelsTr" / f"{NAMES[0]}.nii.gz")
    assert (label[1:4] == 2).all()
    assert (label[4:] < 2).all()
    content = json.loads((task(home) / "dataset.json").read_text())
    assert content["video"]["supervision"] == "sparse"


def test_colour_becomes_three_channels_and_values_get_names(home: Path) -> None:
    for t in range(3):
        colour = np.stack([np.full(SIZE, 10 * c + t, np.uint8) for c in range(3)], -1)
        save(colour, home / "x" / "img" / "cell" / f"frame_{t:03d}.png")
        save(mask(t) * 2, home / "x" / "gt_lv" / "cell" / f"frame_{t:03d}.png")
    words = (*parts(home / "x"), "--labels", "nucleus", "body")
    assert convert(*words) == 0
    spec = DatasetSpec.load(task(home) / "dataset.json")
    assert list(spec.modalities.values()) == ["R", "G", "B"]
    image, _ = NIFTI.read([task(home) / "imagesTr" / "cell_0002.nii.gz"])
    np.testing.assert_array_equal(image[0, :, 0, 0], [20, 21, 22])
    content = json.loads((task(home) / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "nucleus": 1, "body": 2, "ignore": 3}
    assert facts(home, "cell").patient == "cell"


def test_patients_are_found_by_an_expression_of_the_user(home: Path, published: Path) -> None:
    assert convert(*parts(published), "--group_by", "^(.*)_", "--echo") == 0
    assert facts(home, NAMES[0]).patient == "patient0001"
    assert facts(home, NAMES[0]).ed == 7


def test_a_test_video_needs_no_mask(home: Path, published: Path) -> None:
    for path in (published / "gt_lv" / NAMES[3]).iterdir():
        path.unlink()
    assert convert("-i", published) == 0
    assert (task(home) / "imagesTs" / f"{NAMES[3]}_0000.nii.gz").exists()
    assert not (task(home) / "labelsTs").exists()


def test_255_becomes_a_label_when_the_user_says_so(home: Path, published: Path) -> None:
    for path in (published / "gt_lv").glob("*/*.png"):
        save(255 * np.asarray(Image.open(path)), path)
    assert convert("-i", published, "--map", "255=1") == 0
    label, _ = NIFTI.read_label(task(home) / "labelsTr" / f"{NAMES[1]}.nii.gz")
    np.testing.assert_array_equal(label, [mask(t) for t in range(T)])


def broken(folder: Path, what: str) -> str:
    """Break a video in a way; return the message that the command must give."""
    name = NAMES[0]
    images, masks = folder / "img" / name, folder / "gt_lv" / name
    if what == "255":
        save(255 * mask(4), masks / "4.png")
        return (
            f"frame 4 ({masks / '4.png'}) holds the label 255, but labels are 0 to 1. Export the "
            "masks anew; or say what the value means: --map 255=1 makes it label 1, --labels names "
            "more labels"
        )
    if what == "one frame":
        for t in range(1, T):
            (images / f"{t}.png").unlink()
        return (
            f"{images} has 1 frame(s); a video has at least 2. Single pictures are converted by "
            "nnUNet_convert_png_task"
        )
    if what == "no mask":
        for path in masks.iterdir():
            path.unlink()
        return (
            f"no frame has a mask in {masks}, so it cannot train. Add masks, or list it in "
            "test_data"
        )
    if what == "mask of no frame":
        save(mask(0), masks / "11.png")
        return (
            f"{masks / '11.png'} is the mask of a frame that does not exist; {images} has the "
            "frames 0 to 10"
        )
    if what == "gap":
        (images / "3.png").unlink()
        return f"{images} lacks frame 3 between frames 0 and 10. Copy it again"
    if what == "size":
        save(np.zeros((16, 20), np.uint8), images / "5.png")
        return (
            f"{images / '5.png'} has 20 x 16 pixels in 1 channel(s), but 0.png 24 x 16 pixels in 1 "
            "channel(s); all frames of a video must be alike"
        )
    if what == "mask size":
        save(np.zeros((16, 20), np.uint8), masks / "5.png")
        return f"{masks / '5.png'} has 20 x 16 pixels, but its frame 24 x 16"
    save(np.zeros(SIZE, np.uint8), images / "last.png")
    return f"{images / 'last.png'}: the name of a frame must end in its number, such as 0.png"


@pytest.mark.parametrize(
    "what",
    ["255", "one frame", "no mask", "mask of no frame", "gap", "size", "mask size", "name"],
)
def test_bad_data_is_an_error_that_names_the_video(
    home: Path, published: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = broken(published, what)
    assert convert("-i", published) == 3
    assert error_of(capsys) == (
        f"1 of 4 videos cannot be converted, so no task was written:\n  {NAMES[0]}: {message}"
    )
    assert not task(home).exists()


def test_a_patient_in_two_lists_is_an_error(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = {"train_data": NAMES[:1], "val_data": NAMES[2:], "test_data": NAMES[1:2]}
    (published / "split.json").write_text(json.dumps(lists))
    assert convert("-i", published) == 3
    assert error_of(capsys) == (
        f"{published / 'split.json'}: 1 patient(s) are in two lists: patient0001 in train and "
        "test. A patient must be in one only, or the test is no test. Correct the lists"
    )


def test_listed_videos_without_folder_and_masks_without_video_are_errors(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published / "split.json").write_text(json.dumps({"train_data": [*NAMES, "patient0009_4CH"]}))
    assert convert("-i", published) == 3
    assert error_of(capsys) == (
        f"{published / 'split.json'} lists 1 video(s) that have no folder in "
        f"{published / 'img'}: patient0009_4CH"
    )
    (published / "gt_lv" / "patient0009_4CH").mkdir()
    assert convert("-i", published) == 3
    assert "1 folder(s) of masks in" in error_of(capsys)


def test_videos_in_no_list_train_and_are_told(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published / "split.json").write_text(json.dumps({"train_data": NAMES[:2]}))
    assert convert("-i", published) == 0
    assert (
        "note: 2 video(s) are in no list of split.json, and go to training: patient0002_2CH, "
        "patient0003_4CH" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "give either -i, or --images and --masks (and --split)"),
        (("--images", "x"), 2, "give either -i, or --images and --masks (and --split)"),
        (("--images", "x", "--masks", "y"), 3, "x is not a folder"),
        (("-i", "x"), 3, "x lacks img/, gt_lv/, one list *.json (found 0)"),
    ],
)
def test_what_is_missing_on_the_command_line_is_named(
    home: Path, words: tuple[str, ...], status: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert convert(*words) == status
    assert error_of(capsys).startswith(message)


def test_an_expression_without_group_is_wrong_usage(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("-i", published, "--group_by", "patient") == 2
    assert "--group_by 'patient' is no regular expression with a group" in error_of(capsys)


def test_grey_and_coloured_videos_together_are_an_error(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (published / "img" / NAMES[2]).iterdir():
        save(np.zeros((*SIZE, 3), np.uint8), path)
    assert convert("-i", published) == 3
    assert error_of(capsys) == (
        "3 videos are grey (patient0001_2CH, for example) and 1 in colour (patient0002_2CH). "
        "Save all of them in one form"
    )
    assert not task(home).exists()


def test_lists_that_leave_nothing_to_train_with_are_an_error(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published / "split.json").write_text(json.dumps({"test_data": NAMES}))
    assert convert("-i", published) == 3
    assert error_of(capsys).startswith("no video is left to train with: 4 for test, 0 excluded")


def test_a_task_is_not_replaced_by_its_own_conversion(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = task(home) / "source"
    inside.parent.mkdir(parents=True)
    published.rename(inside)
    assert convert("-i", inside) == 2
    assert f"{inside} would be replaced by its own conversion" in error_of(capsys)
    assert (inside / "img").is_dir()


def test_worker_processes_write_the_same(home: Path, published: Path) -> None:
    assert convert("-i", published) == 0
    here = {p.name: p.read_bytes() for p in task(home).rglob("*.*") if p.is_file()}
    assert main(["-i", str(published), "-output_task_id", "29", "-p", "2"]) == 0
    assert {p.name: p.read_bytes() for p in task(home).rglob("*.*") if p.is_file()} == here
