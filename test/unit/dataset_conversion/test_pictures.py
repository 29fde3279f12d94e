"""Folders of pictures to raw tasks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetlike.core import parallel
from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import format_of
from nnunetlike.dataset_conversion.pictures import (
    ConvertedPictures,
    PictureTask,
    Rule,
    convert_pictures,
    relabelled,
)
from nnunetlike.run.convert_png_task import main

rng = np.random.default_rng(0)
GREY = rng.integers(1, 255, (12, 16), np.uint8)
COLOUR = rng.integers(1, 255, (12, 16, 3), np.uint8)
MASK = np.zeros((12, 16), np.uint8)
MASK[3:9, 4:12] = 255


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(home: Path) -> Path:
    """Pictures of two cases with 0/255 masks, and one to predict."""
    for case in "ab":
        save(GREY, home / "images" / f"{case}.png")
        save(MASK, home / "labels" / f"{case}.png")
    save(GREY, home / "new" / "c.png")
    return home


def test_pictures_too_large_to_stand_side_by_side_are_converted_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parallel, "free_memory", lambda: 2**20)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    with caplog.at_level("INFO", "nnunetlike"):
        convert_pictures(
            PictureTask(images=folder / "images", labels=folder / "labels", name="Task501_Cells"),
            processes=2,
        )
    assert "converting: fewer than 2 at a time, since the largest case" in caplog.text


def convert(home: Path, **options: object) -> ConvertedPictures:
    task = PictureTask(
        images=home / "images", labels=home / "labels", name="Task501_Cells",
        **options,  # type: ignore[arg-type]  # what each test changes
    )  # fmt: skip
    return convert_pictures(task, processes=1)


def tree_hash(*folders: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for f in folders for p in f.rglob("*") if p.is_file()):
        digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


def test_masks_of_0_and_255_become_0_and_1_and_images_stay_what_they_are(folder: Path) -> None:
    before = tree_hash(folder / "images", folder / "labels", folder / "new")
    found = convert(folder, test_images=folder / "new", label_names=("cell",))
    assert (found.training, found.testing, found.channels, found.ending) == (2, 1, 1, ".png")
    task = folder / "raw" / "nnUNet_raw_data" / "Task501_Cells"
    spec = DatasetSpec.load(task / "dataset.json")
    assert spec.labels.names == {0: "background", 1: "cell"} and spec.test == ("c",)
    case = spec.training_case(task, "a")
    assert case.images[0].read_bytes() == (folder / "images" / "a.png").read_bytes()
    assert case.label is not None
    label, _ = format_of(case.label).read_label(case.label)
    assert np.array_equal(label[0], MASK // 255)
    assert spec.image_files(task / "imagesTs", "c")[0].is_file()
    assert tree_hash(folder / "images", folder / "labels", folder / "new") == before


def test_jpeg_stays_jpeg_and_its_labels_are_png(folder: Path) -> None:
    for case in "ab":
        (folder / "images" / f"{case}.png").unlink()
        save(COLOUR, folder / "images" / f"{case}.jpg")
    found = convert(folder)
    assert found.ending == ".jpg" and found.channels == 3
    names = {p.name for p in found.folder.rglob("*") if p.is_file()}
    assert names == {"a_0000.jpg", "b_0000.jpg", "a.png", "b.png", "dataset.json"}
    content = json.loads((found.folder / "dataset.json").read_text())
    assert content["modality"] == {"0": "R", "1": "G", "2": "B"}


def test_images_in_several_forms_become_png_of_the_same_channels(folder: Path) -> None:
    (folder / "images" / "a.png").unlink()
    save(COLOUR, folder / "images" / "a.bmp")
    found = convert(folder)
    assert found.ending == ".png" and found.channels == 3
    for case, pixels in (("a", COLOUR), ("b", np.stack([GREY] * 3, axis=-1))):
        path = found.folder / "imagesTr" / f"{case}_0000.png"
        assert np.array_equal(format_of(path).read([path])[0][:, 0], np.moveaxis(pixels, -1, 0))


def test_labels_are_told_by_their_suffix(folder: Path) -> None:
    for case in "ab":
        path = folder / "labels" / f"{case}.png"
        path.rename(path.with_name(f"{case}_mask.png"))
    assert convert(folder, label_suffix="_mask").training == 2
    with pytest.raises(DataError, match="Perhaps --label_suffix _mask"):
        convert(folder)


def test_one_folder_may_hold_images_and_labels(home: Path) -> None:
    for case in "ab":
        save(COLOUR, home / "all" / f"{case}.jpg")
        for observer in ("1st", "2nd"):
            save(MASK > 0, home / "all" / f"{case}_{observer}.png")
    task = PictureTask(
        images=home / "all", labels=home / "all", name="Task502_V", label_suffix="_1st"
    )
    found = convert_pictures(task, processes=1)
    assert found.training == 2 and found.left_out == ("a_2nd.png", "b_2nd.png")
    wrong = PictureTask(images=home / "all", labels=home / "all", name="Task502_V")
    with pytest.raises(DataError, match="--label_suffix _1st or --label_suffix _2nd"):
        convert_pictures(wrong, processes=1)


@pytest.mark.parametrize(
    ("rules", "values", "labels"),
    [
        (["255=1"], [0, 255], [0, 1]),
        (["0-127=0", "128-255=1"], [0, 100, 128, 255], [0, 0, 1, 1]),
        (["10=2", "0-255=1"], [0, 10, 11], [1, 2, 1]),
    ],
)
def test_the_first_rule_that_covers_a_value_holds(
    rules: list[str], values: list[int], labels: list[int]
) -> None:
    parsed = [Rule.parse(text) for text in rules]
    assert relabelled(np.array(values), parsed).tolist() == labels


@pytest.mark.parametrize("text", ["255", "a=1", "255=-1", "9-3=1", "255:1"])
def test_a_wrong_rule_is_refused_with_the_form_it_needs(text: str) -> None:
    with pytest.raises(UsageError, match="VALUE=LABEL or FROM-TO=LABEL"):
        Rule.parse(text)


def test_other_values_ask_for_rules_and_propose_them(folder: Path) -> None:
    save(np.where(MASK, 128, GREY // 200 * 255).astype(np.uint8), folder / "labels" / "a.png")
    with pytest.raises(DataError, match=r"hold 3 values: 0, 128, 255.*--map 0=0 128=1 255=2"):
        convert(folder)
    save(GREY, folder / "labels" / "a.png")
    with pytest.raises(DataError, match="smoothed mask: --map 0-127=0 128-255=1"):
        convert(folder)
    with pytest.raises(DataError, match=r"no --map rule covers: a\.png holds 1,"):
        convert(folder, rules=(Rule(0, 0, 0), Rule(255, 255, 1)))
    with pytest.raises(UsageError, match=r"labels \[0, 2\]; they must be 0, 1, 2"):
        convert(folder, rules=(Rule(0, 127, 0), Rule(128, 255, 2)))


def test_images_and_labels_that_do_not_match_are_named(folder: Path) -> None:
    (folder / "labels" / "b.png").rename(folder / "labels" / "x.png")
    with pytest.raises(DataError) as error:
        convert(folder)
    assert "1 image(s) without label" in str(error.value) and "b.png" in str(error.value)
    assert "1 label(s) without image" in str(error.value) and "x.png" in str(error.value)
    assert not (folder / "raw").exists()


def test_a_label_of_another_size_is_refused(folder: Path) -> None:
    save(MASK[:5], folder / "labels" / "b.png")
    with pytest.raises(DataError, match=r"b\.png: .*\(1, 5, 16\) pixels .*\(1, 12, 16\)"):
        convert(folder)


def test_the_command_says_what_it_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-i", f"{folder}/images", "-l", f"{folder}/labels", "-output_task_id", "7", "-p", "1"]
    assert main([*words, "-name", "Cells", "--map", "255=1"]) == 0
    out = capsys.readouterr().out
    assert "Task007_Cells: 2 training images (.png, grey) with labels, 0 test images" in out
    assert "label values: 255 became 1, 0 became 0" in out
    assert main([*words, "-name", "a/b"]) == 2
    assert "must consist of letters" in capsys.readouterr().err
