"""nnUNet_predict -m video2d, as users run it, with networks that were never trained."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from nnunetlike.core.serialization import load_pickle
from nnunetlike.data.films import read_film
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.averaging import mean_over_folds
from nnunetlike.inference.model_bundle import load_bundle
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.gdkvm import GDKVMSpec
from nnunetlike.networks.model_files import describe_network, save_model_file
from nnunetlike.plans.v1 import load_plans, plans_to_v1
from nnunetlike.run.convert_camus_task import main as convert
from nnunetlike.run.plan_and_preprocess import main as plan_and_preprocess
from nnunetlike.run.predict import main

TASK = "Task950_Ventricles"
NEW = "patient0006_4CH"


def save_model(home: Path, task: str = TASK, folds: int = 1) -> None:
    """Save untrained networks for a planned task."""
    plans = load_plans(home / "preprocessed" / task / "nnUNetPlansv2.1_plans_video2D.pkl")
    stage = plans.stage("video2d")
    assert stage.video is not None
    wanted = NetworkTask(
        channels=1, classes=plans.num_classes, topology=stage.topology, base_features=4,
        memory_stride=stage.video.memory_stride, network_size="small",
    )  # fmt: skip
    folder = home / "results" / "nnUNet" / "video2d" / task / "GDKVMTrainer__nnUNetPlansv2.1"
    for fold in range(folds):
        torch.manual_seed(fold)
        path = folder / f"fold_{fold}" / "model_final_checkpoint.model"
        path.parent.mkdir(parents=True)
        info = {
            "plans": plans_to_v1(plans),
            "network": describe_network(GDKVMSpec(), wanted),
            "init": [None] * 5 + [0],
        }
        content = {"state_dict": GDKVMSpec().build(wanted).state_dict(), "epoch": 1}
        save_model_file(path, content, info)


@pytest.fixture
def home(home: Path, video_task: Callable[..., Path]) -> Path:
    """A planned task of six videos, a model of one fold, and one video in imagesTs."""
    video_task()
    save_model(home)
    return home


def predict(home: Path, *words: object, images: Path | None = None, out: str = "out") -> int:
    source = images or home / "raw" / "nnUNet_raw_data" / TASK / "imagesTs"
    argv = [
        "-i", source, "-o", home / out, "-t", 950, "-m", "video2d", "--device", "cpu",
        "--num_threads_preprocessing", 0, "--num_threads_nifti_save", 0, *words,
    ]  # fmt: skip
    return main([str(word) for word in argv])


def write_video(path: Path, voxels: Any, affine: Any = None) -> None:
    """Write (T, H, W) as NIfTI (X, Y, T)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = np.asarray(voxels).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(axes, np.eye(4) if affine is None else affine), path)


def clip(tool: ModuleType, frames: int = 8) -> Any:
    return np.round(255 * tool.clip(3, "dropout", max(frames, 6))[0][:frames]).astype(np.uint8)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.rpartition("error: ")[2].strip()


def test_a_video_is_predicted_frame_by_frame_without_naming_the_trainer(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(home, "-z") == 0
    out = capsys.readouterr().out
    assert "GDKVMTrainer__nnUNetPlansv2.1" in out and "1 predictions are in" in out
    source = nibabel.load(home / "raw/nnUNet_raw_data" / TASK / f"imagesTs/{NEW}_0000.nii.gz")
    found = nibabel.load(home / "out" / f"{NEW}.nii.gz")
    assert found.shape == source.shape == (48, 48, 8)
    np.testing.assert_array_equal(found.affine, source.affine)
    assert set(np.unique(found.get_fdata())) <= {0, 1}
    probabilities = np.load(home / "out" / f"{NEW}.npz")["softmax"]
    assert probabilities.shape[:2] == (2, 8)
    np.testing.assert_allclose(probabilities.astype(float).sum(0), 1, atol=2e-3)
    record = CaseRecord.from_v1(load_pickle(home / "out" / f"{NEW}.pkl"))
    assert record.video is not None and record.video.patient == "patient0006"


def test_odd_sides_and_unequal_spacing_keep_shape_and_place(
    home: Path, make_ventricles: ModuleType
) -> None:
    affine = np.diag([-0.5, -0.25, 1, 1.0])
    affine[:3, 3] = (5, 6, 7)
    voxels = clip(make_ventricles)[:, :41, :37]
    write_video(home / "images" / "x_0000.nii.gz", voxels, affine)
    assert predict(home, images=home / "images") == 0
    found = nibabel.load(home / "out" / "x.nii.gz")
    assert found.shape == (37, 41, 8)
    np.testing.assert_allclose(found.affine, affine)


def test_what_the_file_says_of_spacing_counts_for_nothing_where_the_plans_are_in_pixels(
    home: Path, make_ventricles: ModuleType
) -> None:
    voxels = clip(make_ventricles)
    write_video(home / "images" / "a_0000.nii.gz", voxels)
    write_video(home / "images" / "b_0000.nii.gz", voxels, np.diag([0.3, 0.2, 1, 1.0]))
    assert predict(home, images=home / "images") == 0
    a, b = (nibabel.load(home / "out" / f"{name}.nii.gz").get_fdata() for name in "ab")
    np.testing.assert_array_equal(a, b)


def test_a_video_of_one_frame_is_predicted(home: Path, make_ventricles: ModuleType) -> None:
    frame = clip(make_ventricles, 1)
    write_video(home / "images" / "x_0000.nii.gz", frame)
    flat = nibabel.Nifti1Image(frame[0].T, np.eye(4))
    nibabel.save(flat, home / "images" / "flat_0000.nii.gz")
    assert predict(home, "--overlay", images=home / "images") == 0
    assert nibabel.load(home / "out" / "x.nii.gz").shape == (48, 48, 1)
    assert nibabel.load(home / "out" / "flat.nii.gz").shape == (48, 48)
    assert (home / "out" / "x.gif").exists()


def test_pictures_are_refused_with_the_way_to_make_videos(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "images").mkdir()
    Image.fromarray(np.ones((48, 48), np.uint8)).save(home / "images" / "a_0000.png")
    assert predict(home, images=home / "images") == 3
    assert error_of(capsys) == (
        f"{home / 'images'}: a_0000.png are pictures, but this model predicts videos: "
        "ID_0000.nii.gz whose last axis is time. nnUNet_convert_png_video_task makes them of "
        "folders of frames"
    )


def test_a_sidecar_that_is_no_description_is_an_error(
    home: Path, make_ventricles: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(home / "images" / "x_0000.nii.gz", clip(make_ventricles))
    (home / "images" / "x.json").write_text('{"fps": 50}')
    assert predict(home, images=home / "images") == 3
    assert f"{home / 'images' / 'x.json'} does not describe a video" in error_of(capsys)


def test_both_directions_are_averaged(home: Path) -> None:
    assert predict(home, "-z", "--bidirectional") == 0
    bundle = load_bundle(home / "results/nnUNet/video2d" / TASK / "GDKVMTrainer__nnUNetPlansv2.1")
    case = np.load(
        home / "preprocessed" / TASK
        / "nnUNetData_plans_v2.1_video2D_stage0" / "patient0000_4CH.npz"
    )["data"][:-1]  # fmt: skip
    settings = PredictionSettings(device=torch.device("cpu"))
    forward = mean_over_folds(bundle, case, settings)
    backward = mean_over_folds(bundle, np.ascontiguousarray(case[:, ::-1]), settings)[:, ::-1]
    both = mean_over_folds(
        bundle, case, PredictionSettings(device=torch.device("cpu"), bidirectional=True)
    )
    np.testing.assert_allclose(both, (forward + backward) / 2, atol=1e-6)
    assert np.abs(forward - backward).max() > 1e-5


def test_folds_are_averaged(home: Path) -> None:
    import shutil

    shutil.rmtree(home / "results")
    save_model(home, folds=2)
    for name, words in (("first", ["-f", 0]), ("second", ["-f", 1]), ("both", [])):
        assert predict(home, "-z", *words, out=name) == 0
    first, second, both = (
        np.load(home / name / f"{NEW}.npz")["softmax"].astype(float)
        for name in ("first", "second", "both")
    )
    np.testing.assert_allclose(both, (first + second) / 2, atol=2e-3)


def test_options_of_videos_are_refused_for_images(
    home: Path, capsys: pytest.CaptureFixture[str], tiny_plans: Callable[[int], Any]
) -> None:
    from nnunetlike.networks.unet import UNetSpec
    from nnunetlike.networks.v1_weights import state_dict_to_v1

    spec, task = UNetSpec.tiny(3)
    folder = home / "results/nnUNet/3d_fullres" / TASK / "nnUNetTrainerV2__nnUNetPlansv2.1"
    path = folder / "fold_0" / "model_final_checkpoint.model"
    path.parent.mkdir(parents=True)
    info = {
        "plans": plans_to_v1(tiny_plans(3)),
        "network": describe_network(spec, task),
        "init": [None] * 5 + [0],
    }
    save_model_file(path, {"state_dict": state_dict_to_v1(spec.build(task)), "epoch": 1}, info)
    for words, named in (
        (["--bidirectional"], "--bidirectional"),
        (["--overlay", "--bidirectional"], "--bidirectional and --overlay"),
    ):
        assert predict(home, "-m", "3d_fullres", *words) == 2
        assert error_of(capsys) == (
            f"{named} can be had for videos only, and {folder} predicts images. Leave it out, or "
            "choose a model of videos with -m video2d"
        )


def test_an_overlay_shows_every_frame_and_is_drawn_once(home: Path) -> None:
    assert predict(home, "--overlay") == 0
    path = home / "out" / f"{NEW}.gif"
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.format) == (8, "GIF")  # type: ignore[attr-defined]
        assert picture.info["duration"] == 250  # two seconds for eight frames
        assert picture.size == (256, 256 + 32)
    before = path.stat().st_mtime_ns
    assert predict(home, "--overlay") == 0
    assert path.stat().st_mtime_ns == before
    path.unlink()
    assert predict(home, "--overlay") == 0
    assert path.exists()


def test_an_overlay_can_be_a_film(home: Path) -> None:
    pytest.importorskip("av")
    assert predict(home, "--overlay", "mp4") == 0
    assert read_film(home / "out" / f"{NEW}.mp4").shape == (8, 288, 256)


def test_a_film_without_pyav_is_refused_before_anything_is_predicted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert predict(home, "--overlay", "mp4") == 2
    assert error_of(capsys) == (
        "--overlay mp4 needs PyAV, which is not installed here. Install it with: "
        'pip install "nnunetlike[video]"'
    )
    assert not (home / "out" / f"{NEW}.nii.gz").exists()


def test_clinical_numbers_are_written_per_patient(home: Path) -> None:
    assert predict(home) == 0
    with (home / "out" / "clinical.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient"] for row in rows] == ["patient0006"]
    assert "ef" in rows[0] and rows[0]["status"] in ("ok", "partial", "failed")


def test_without_the_tasks_description_the_numbers_are_left_out_with_a_note(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = home / "raw" / "nnUNet_raw_data" / TASK / "imagesTs"
    for folder in (images.parent, home / "preprocessed" / TASK):
        (folder / "dataset.json").unlink()
    assert predict(home) == 0
    assert not (home / "out" / "clinical.csv").exists()
    assert "no clinical.csv is written" in "".join(capsys.readouterr())


def test_parts_write_the_numbers_of_all_videos_predicted_so_far(
    home: Path, make_ventricles: ModuleType
) -> None:
    for case in ("patient0001_2CH", "patient0001_4CH"):
        write_video(home / "images" / f"{case}_0000.nii.gz", clip(make_ventricles))
        facts = {"patient": "patient0001", "view": case[-3:], "labelled_frames": []}
        (home / "images" / f"{case}.json").write_text(json.dumps(facts))
    for part in (0, 1):
        words = ("--num_parts", 2, "--part_id", part)
        assert predict(home, *words, images=home / "images") == 0
    with (home / "out" / "clinical.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    assert (rows[0]["case_2ch"], rows[0]["case_4ch"]) == ("patient0001_2CH", "patient0001_4CH")


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same(
    home: Path, start_dask: Callable[..., tuple[str, subprocess.Popen[str]]]
) -> None:
    address, _ = start_dask(1)
    for out, words in (("here", ()), ("there", ("--dask", address))):
        assert predict(home, "--overlay", "--bidirectional", *words, out=out) == 0
    for name in (f"{NEW}.nii.gz", f"{NEW}.gif", "clinical.csv"):
        assert (home / "there" / name).read_bytes() == (home / "here" / name).read_bytes()


@pytest.mark.slow
def test_real_pictures_of_diastole_and_systole_come_back_on_their_grid(
    home: Path, shared: Path
) -> None:
    number = ["-output_task_id", "951", "-name", "CAMUS", "-p", "0"]
    assert convert(["-i", str(shared / "data" / "CAMUS_4CH"), *number]) == 0
    assert plan_and_preprocess(["-t", "951", "-tl", "0", "-tf", "0"]) == 0
    save_model(home, task="Task951_CAMUS")
    images = home / "raw/nnUNet_raw_data/Task951_CAMUS/imagesTr"
    for path in sorted(images.iterdir())[2:]:
        path.unlink()
    assert predict(home, "-t", "951", "--overlay", images=images) == 0
    for path in images.iterdir():
        source = nibabel.load(path)
        found = nibabel.load(home / "out" / path.name.replace("_0000", ""))
        assert found.shape == source.shape and found.shape[2] == 2
        np.testing.assert_array_equal(found.affine, source.affine)
    with (home / "out" / "clinical.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


@pytest.mark.slow
def test_the_command_in_processes_of_its_own_writes_the_same(home: Path) -> None:
    assert predict(home, "--overlay", out="here") == 0
    images = home / "raw" / "nnUNet_raw_data" / TASK / "imagesTs"
    words = ["-i", images, "-o", home / "there", "-t", TASK, "-m", "video2d", "--overlay"]
    words += ["--num_threads_preprocessing", 1, "--num_threads_nifti_save", 1]
    done = subprocess.run(
        [sys.executable, "-m", "nnunetlike.run.predict", *map(str, words), "--device=cpu"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in (f"{NEW}.nii.gz", f"{NEW}.gif", "clinical.csv"):
        assert (home / "there" / name).read_bytes() == (home / "here" / name).read_bytes()
