"""EchoNet-Dynamic to raw tasks; all films and tracings are synthetic."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.draw import polygon

from nnunetlike.core.errors import DataError
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import VideoFacts
from nnunetlike.dataset_conversion.echonet import traced_mask
from nnunetlike.run.convert_echonet_task import main

FRAMES = 12
SIZE = 112
NIFTI = format_of(Path("x.nii.gz"))


def chords(a: float, b: float, n: int = 20) -> np.ndarray:
    """Lines (n + 1, 4) of an upright ellipse with half axes a (along y) and b; first the axis."""
    y0 = x0 = 55.0
    y = y0 + a * np.cos(np.linspace(0, np.pi, n + 2)[1:-1])[::-1]
    half = b * np.sqrt(1 - ((y - y0) / a) ** 2)
    lines = np.stack([x0 - half, y, x0 + half, y], axis=1)
    return np.concatenate([[[x0, y0 - a, x0, y0 + a]], lines])


def film(path: Path, frames: int = FRAMES) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=50)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuvj420p"
        for t in range(frames):
            pixels = np.full((SIZE, SIZE, 3), 10 + 15 * t, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())


class Lists:
    """The two lists of the data set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Sequence[Any]] = []
        self.tracings: list[Sequence[Any]] = []

    def add(
        self, name: str, split: str, ed: int = 2, es: int = 9, frames: int = FRAMES,
        only: Sequence[str] = ("ED", "ES"),
    ) -> Path:  # fmt: skip
        """Add a video; returns the path of its film, which is written."""
        self.files.append((name, 60.5, 40, 100, SIZE, SIZE, 50, frames, split))
        traced = {"ES": (es, chords(25, 12)), "ED": (ed, chords(35, 20))}
        for phase in only:
            frame, lines = traced[phase]
            self.tracings += [(f"{name}.avi", *line, frame) for line in lines]
        film(self.folder / "Videos" / f"{name}.avi")
        return self.folder / "Videos" / f"{name}.avi"

    def save(self) -> None:
        heads = (
            "FileName EF ESV EDV FrameHeight FrameWidth FPS NumberOfFrames Split",
            "FileName X1 Y1 X2 Y2 Frame",
        )
        for name, head, rows in zip(
            ("FileList", "VolumeTracings"), heads, (self.files, self.tracings), strict=True
        ):
            with (self.folder / f"{name}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([head.split(), *rows])


@pytest.fixture
def lists(home: Path) -> Lists:
    """Three good videos, one of each split."""
    (home / "EchoNet-Dynamic").mkdir()
    found = Lists(home / "EchoNet-Dynamic")
    for name, split in (("0XA", "TRAIN"), ("0XB", "VAL"), ("0XC", "TEST")):
        found.add(name, split)
    return found


def convert(lists: Lists, *words: object) -> int:
    lists.save()
    argv = ["-i", lists.folder, "-output_task_id", 28, "-p", 0, *words]
    return main([str(word) for word in argv])


def task(home: Path) -> Path:
    return home / "raw" / "nnUNet_raw_data" / "Task028_EchoNet"


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.rpartition("error: ")[2].strip()


def test_a_traced_ellipse_is_the_official_polygon_and_has_its_area() -> None:
    lines = chords(36, 21)
    x = np.concatenate([lines[1:, 0], lines[:0:-1, 2]])
    y = np.concatenate([lines[1:, 1], lines[:0:-1, 3]])
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[polygon(np.rint(y), np.rint(x), (SIZE, SIZE))] = 1
    found = traced_mask(lines, (SIZE, SIZE))
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == pytest.approx(np.pi * 36 * 21, rel=0.03)


def test_the_long_axis_is_no_part_of_the_outline() -> None:
    lines = chords(36, 21)
    other_axis = lines.copy()
    other_axis[0] = (0, 0, 111, 111)
    np.testing.assert_array_equal(
        traced_mask(lines, (SIZE, SIZE)), traced_mask(other_axis, (SIZE, SIZE))
    )


def test_a_tracing_without_area_is_an_error() -> None:
    with pytest.raises(DataError, match="has 2 lines; it needs 3"):
        traced_mask(chords(36, 21)[:2], (SIZE, SIZE))


def test_two_frames_are_labelled_and_all_others_ignored(
    home: Path, lists: Lists, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(lists) == 0
    spec = DatasetSpec.load(task(home) / "dataset.json")
    assert (spec.training, spec.test) == (("0XA", "0XB"), ("0XC",))
    assert VideoFacts.load(task(home) / "casesTr" / "0XA.json") == VideoFacts(
        patient="0XA", labelled_frames=(2, 9), view="4CH", fps=50.0, ed=2, es=9, ef=60.5,
        spacing_known=False, split="train",
    )  # fmt: skip
    label, grid = NIFTI.read_label(task(home) / "labelsTr" / "0XA.nii.gz")
    assert grid.spacing == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(label[2], traced_mask(chords(35, 20), (SIZE, SIZE)))
    np.testing.assert_array_equal(label[9], traced_mask(chords(25, 12), (SIZE, SIZE)))
    assert (np.delete(label, (2, 9), 0) == 2).all()
    image, _ = NIFTI.read([task(home) / "imagesTr" / "0XA_0000.nii.gz"])
    np.testing.assert_allclose(image[0, :, 50, 50], 10 + 15 * np.arange(FRAMES), atol=3)
    content = json.loads((task(home) / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "LV": 1, "ignore": 2}
    assert content["video"]["supervision"] == "edes"
    out = capsys.readouterr().out
    assert "3 videos of 3 patients (1 training, 1 validation, 1 test), 6 labelled frames" in out
    assert not (task(home) / "excluded.csv").exists()


def test_the_larger_cavity_is_diastole_even_after_systole(home: Path, lists: Lists) -> None:
    lists.add("0XD", "TRAIN", ed=10, es=3)
    assert convert(lists) == 0
    found = VideoFacts.load(task(home) / "casesTr" / "0XD.json")
    assert (found.ed, found.es, found.labelled_frames) == (10, 3, (3, 10))


def test_videos_without_tracing_and_tracings_without_video_are_listed(
    home: Path, lists: Lists, capsys: pytest.CaptureFixture[str]
) -> None:
    lists.add("0XNONE", "TRAIN", only=())
    lists.add("0XONE", "TRAIN", only=("ED",))
    lists.add("0XGONE", "TRAIN").unlink()
    lists.add("0XEXTRA", "TRAIN").unlink()
    lists.files.pop()
    assert convert(lists) == 0
    reasons = {
        "0XEXTRA": "it is traced in VolumeTracings.csv, but not listed in FileList.csv",
        "0XGONE": "it has no video Videos/0XGONE.avi",
        "0XNONE": "it has no tracing in VolumeTracings.csv",
        "0XONE": "only frame 2 is traced, so ED or ES is missing",
    }
    with (task(home) / "excluded.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["video", "reason"], *map(list, reasons.items())]
    out = capsys.readouterr().out
    for name, reason in reasons.items():
        assert f"excluded: {name}: {reason}\n" in out
    assert f"4 excluded, listed in {task(home) / 'excluded.csv'}" in out
    assert len(DatasetSpec.load(task(home) / "dataset.json").training) == 2


def damage(lists: Lists, what: str) -> str:
    """Add a damaged video 0XD; return the message that the command must give."""
    path = lists.add("0XD", "TRAIN", es=40 if what == "beyond" else 9)
    if what == "beyond":
        return f"VolumeTracings.csv traces frame 40, but {path} has the frames 0 to 11"
    if what == "short":
        film(path, 5)
        return f"{path} ends after 5 frames, but FileList.csv says 12. Copy or download it again"
    path.write_bytes(bytes(500))
    return (
        f"{path} cannot be decoded (Invalid data found when processing input). Copy or download it "
        "again"
    )


@pytest.mark.parametrize("what", ["corrupt", "short", "beyond"])
def test_damaged_films_are_errors_unless_they_are_to_be_skipped(
    home: Path, lists: Lists, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = damage(lists, what)
    assert convert(lists) == 3
    assert error_of(capsys) == (
        f"1 of 4 videos cannot be converted, so no task was written:\n  0XD: {message}"
    )
    assert not task(home).exists()
    assert convert(lists, "--skip_damaged") == 0
    assert f"excluded: 0XD: {message}\n" in capsys.readouterr().out
    assert "0XD" in (task(home) / "excluded.csv").read_text()


def test_a_video_in_two_splits_is_an_error(
    home: Path, lists: Lists, capsys: pytest.CaptureFixture[str]
) -> None:
    lists.files.append((*lists.files[0][:-1], "TEST"))
    assert convert(lists) == 3
    assert error_of(capsys) == (
        f"{lists.folder / 'FileList.csv'}: 1 patient(s) are in two lists: 0XA in train and test. A "
        "patient must be in one only, or the test is no test. Correct the lists"
    )


def test_lists_that_are_missing_or_lack_columns_are_errors(
    home: Path, lists: Lists, capsys: pytest.CaptureFixture[str]
) -> None:
    lists.save()
    path = lists.folder / "VolumeTracings.csv"
    path.write_text(path.read_text().replace("Frame", "frame"))
    assert main(["-i", str(lists.folder), "-output_task_id", "28", "-p", "0"]) == 3
    assert error_of(capsys) == (
        f"{path} lacks the column(s) Frame; it has FileName, X1, Y1, X2, Y2, frame"
    )
    path.unlink()
    assert main(["-i", str(lists.folder), "-output_task_id", "28", "-p", "0"]) == 3
    assert error_of(capsys) == (
        f"{path} does not exist. Give the folder that holds FileList.csv, VolumeTracings.csv and "
        "Videos"
    )


def test_without_pyav_nothing_is_read_and_the_remedy_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["-i", str(home), "-output_task_id", "28"]) == 2
    assert error_of(capsys) == (
        "nnUNet_convert_echonet_task needs PyAV, which is not installed here. Install it with: "
        'pip install "nnunetlike[video]"'
    )
