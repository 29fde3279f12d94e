"""One case, stored in several ways, has one prediction in the world."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike import Predictor
from nnunetlike.core.errors import UsageError
from nnunetlike.core.serialization import load_pickle, save_json
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.imageio.nifti_nibabel import WHERE
from nnunetlike.data.orientation import AS_STORED, Turn
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore, load_npz
from nnunetlike.inference.cases import InputCase, PrepareCase
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    export_settled,
    label_within_box,
)
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import load_plans
from nnunetlike.preprocessing.preprocessor import Preprocessor
from nnunetlike.run.ensemble import main as ensemble
from nnunetlike.run.plan_and_preprocess import main as plan
from nnunetlike.run.predict import main as predict

STORED = ("LPS", "RAS", "LAS", "LPI", "PSR")
SHAPE, SPACING = (9, 22, 19), (0.9, 1.1, 1.4)
"""(D, H, W) of the case as LPS, and x, y, z in mm: both unlike along each axis."""

Model = Callable[..., Path]


def rotation(degrees: float = 20) -> list[float]:
    """Return a direction, oblique about two axes, whose nearest letters are LPS."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return list((about_x @ about_z).ravel())


def case(seed: int = 0) -> sitk.Image:
    """Return noise with a bright block, zero at some borders, which cropping takes away."""
    voxels = np.random.default_rng(seed).normal(5, 2, SHAPE).astype(np.float32)
    voxels[3:7, 5:15, 3:9] += 6
    voxels[:1], voxels[:, :, -2:], voxels[:, :3] = 0, 0, 0
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING)
    image.SetOrigin((3.0, -7.0, 11.0))
    return image


def storages() -> dict[str, sitk.Image]:
    """Return the case, straight and oblique, in every way of storing it."""
    straight, oblique = case(), case()
    oblique.SetDirection(rotation())
    return {
        f"{name}{letters}": sitk.DICOMOrient(image, letters)
        for name, image in (("", straight), ("oblique_", oblique))
        for letters in STORED
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of the case in every storage, as NIfTI and the RAS as MetaImage and NRRD too."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in storages().items():
        sitk.WriteImage(image, str(folder / f"{name}_0000.nii.gz"))
    for ending in ("mha", "nrrd"):
        sitk.WriteImage(storages()["RAS"], str(folder / f"{ending}_0000.{ending}"))
    return folder


@pytest.fixture
def model(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> Model:
    """Writes an untrained model whose plans resample and permute axes; returns its folder."""

    def make(orientation: str | None, seed: int = 0) -> Path:
        plans = replace(
            tiny_plans(3), orientation=orientation, transpose_forward=(2, 0, 1),
            transpose_backward=(1, 2, 0),
        )  # fmt: skip
        folder = tmp_path / f"T__P_{orientation}_{seed}"
        return save_tiny_model(folder, plans, seed)

    return make


def run_predict(model: Path, images: Path, output: Path, *options: str) -> Path:
    words = ["-i", str(images), "-o", str(output), "--model_folder", str(model), "--device", "cpu",
             "--num_threads_preprocessing", "0", "--num_threads_nifti_save", "0",
             "--disable_tta", *options]  # fmt: skip
    assert predict(words) == 0
    return output


def in_lps(label: sitk.Image) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(sitk.DICOMOrient(label, "LPS")))


def labels_of(folder: Path) -> dict[str, np.ndarray]:
    """Return every label map of a folder in LPS, by name."""
    files = [p for p in folder.iterdir() if p.name.endswith((".nii.gz", ".mha", ".nrrd"))]
    return {path.name.split(".")[0]: in_lps(sitk.ReadImage(str(path))) for path in files}


def assert_all_equal(labels: Mapping[str, np.ndarray], count: int = len(STORED) * 2 + 2) -> None:
    assert len(labels) == count
    expected = labels["LPS"]
    assert len(np.unique(expected)) > 1
    shares = {name: float((found == expected).mean()) for name, found in labels.items()}
    assert set(shares.values()) == {1.0}, shares


def assert_on_the_grid_of(label: Path, image: Path) -> None:
    """Origin, spacing and direction are those of the image, bit for bit."""
    if label.name.endswith(".nii.gz"):
        found, expected = nibabel.load(label).header, nibabel.load(image).header
        assert all(np.array_equal(found[field], expected[field]) for field in WHERE)
    found, expected = sitk.ReadImage(str(label)), sitk.ReadImage(str(image))
    for fact in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
        assert getattr(found, fact)() == getattr(expected, fact)(), (label, fact)


@pytest.mark.parametrize("mode", ["normal", "fast", "fastest"])
def test_every_storage_gets_the_same_labels_on_its_own_grid(
    model: Model, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    found = run_predict(model("LPS"), images, tmp_path / "out", "--mode", mode)
    assert_all_equal(labels_of(found))
    for image in images.iterdir():
        assert_on_the_grid_of(found / image.name.replace("_0000", ""), image)
    said = "".join(capsys.readouterr())
    assert "2 of 12 cases are stored in the orientation of the training cases (LPS)" in said
    assert (
        "10 of 12 cases are stored in another orientation than the training cases (LPS): 4 RAS, "
        "2 LAS, 2 LPI, 2 PSR. They are turned" in said
    )


def test_a_storage_like_the_training_is_seen_as_it_is(
    model: Model, images: Path, tmp_path: Path
) -> None:
    known = run_predict(model("PSR"), images, tmp_path / "known")
    unknown = run_predict(model(None, 0), images, tmp_path / "unknown")
    name = "oblique_PSR.nii.gz"
    assert (known / name).read_bytes() == (unknown / name).read_bytes()
    assert_all_equal(labels_of(known))


def test_plans_without_orientation_see_cases_as_stored(
    model: Model, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = labels_of(run_predict(model(None), images, tmp_path / "out"))
    assert (found["RAS"] != found["LPS"]).any() and (found["PSR"] != found["LPS"]).any()
    assert "cases are stored" not in "".join(capsys.readouterr())


def test_probabilities_lie_as_the_file_does_and_ensembles_are_equal_too(
    model: Model, images: Path, tmp_path: Path
) -> None:
    members = [
        run_predict(model("LPS", seed), images, tmp_path / f"member_{seed}", "-z")
        for seed in range(2)
    ]
    expected = load_npz(members[0] / "LPS.npz", "softmax")
    for letters in STORED:
        found = load_npz(members[0] / f"{letters}.npz", "softmax")
        properties = load_pickle(members[0] / f"{letters}.pkl")
        assert found.shape[1:] == tuple(properties["size_after_cropping"])
        assert np.array_equal(Turn(letters, "LPS").apply(found), expected)
        assert properties.get("turned") == (None if letters == "LPS" else [letters, "LPS"])
    output = tmp_path / "ensemble"
    words = ["-f", *map(str, members), "-o", str(output), "-t", "0"]
    assert ensemble(words) == 0
    assert_all_equal(labels_of(output))
    assert_on_the_grid_of(output / "oblique_PSR.nii.gz", images / "oblique_PSR_0000.nii.gz")


def test_a_model_that_turns_and_one_that_does_not_make_an_ensemble(
    model: Model, images: Path, tmp_path: Path
) -> None:
    for path in images.iterdir():
        if path.name != "PSR_0000.nii.gz":
            path.unlink()
    members = [
        run_predict(model(orientation, seed), images, tmp_path / f"member_{seed}", "-z")
        for seed, orientation in enumerate(("LPS", None))
    ]
    output = tmp_path / "ensemble"
    assert ensemble(["-f", *map(str, members), "-o", str(output), "-t", "0"]) == 0
    kept = [load_npz(member / "PSR.npz", "softmax").astype(np.float32) for member in members]
    expected = ((kept[0] + kept[1]) / 2).astype(np.float16).argmax(0)
    (d0, d1), (h0, h1), (w0, w1) = load_pickle(members[0] / "PSR.pkl")["crop_bbox"]
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "PSR.nii.gz")))
    assert np.array_equal(label[d0:d1, h0:h1, w0:w1], expected)


def test_a_predictor_gives_the_labels_and_probabilities_of_the_command(
    model: Model, images: Path, tmp_path: Path
) -> None:
    by_command = run_predict(model("LPS"), images, tmp_path / "out")
    predictor = Predictor.from_folder(tmp_path / "T__P_LPS_0", device="cpu", tta=False)
    expected = None
    for name, image in storages().items():
        label, probabilities = predictor.predict(image, probabilities=True)
        written = sitk.ReadImage(str(by_command / f"{name}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(written))
        for fact in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
            assert getattr(label, fact)() == getattr(image, fact)()
        turned = Turn(name[-3:], "LPS").apply(probabilities)
        expected = turned if expected is None else expected
        assert np.array_equal(turned, expected)


def test_the_orientation_of_an_array_is_that_of_the_training_unless_it_is_told(
    model: Model, tmp_path: Path
) -> None:
    predictor = Predictor.from_folder(model("LPS"), device="cpu", tta=False)
    expected = in_lps(predictor.predict(case()))
    for name, image in storages().items():
        letters = name[-3:]
        array, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
        label = predictor.predict(array, spacing=spacing, orientation=letters)
        assert np.array_equal(Turn(letters, "LPS").apply(np.asarray(label)), expected)
    array, spacing = sitk.GetArrayFromImage(case()), SPACING[::-1]
    assert np.array_equal(predictor.predict(array, spacing=spacing), expected)
    [(_, label)] = predictor.predict_cases(
        [{"image": array, "spacing": spacing, "orientation": "LPS"}]
    )
    assert np.array_equal(label, expected)


def test_an_orientation_that_cannot_be_followed_is_refused(model: Model, tmp_path: Path) -> None:
    array, spacing = sitk.GetArrayFromImage(case()), SPACING[::-1]
    predictor = Predictor.from_folder(model("LPS"), device="cpu", tta=False)
    with pytest.raises(UsageError, match="give three letters, where the axes x, y, z"):
        predictor.predict(array, spacing=spacing, orientation="XYZ")
    with pytest.raises(UsageError, match="SimpleITK images know their own"):
        predictor.predict(case(), orientation="RAS")
    without = Predictor.from_folder(model(None), device="cpu", tta=False)
    with pytest.raises(UsageError, match="does not say how its training cases lie"):
        without.predict(array, spacing=spacing, orientation="RAS")


def raw_task(home: Path, orientations: Mapping[str, str]) -> str:
    """Write a raw task with a case per entry, stored as said; return its name."""
    folder = home / "raw" / "nnUNet_raw_data" / "Task903_Turned"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, (case_id, letters) in enumerate(orientations.items()):
        image = case(number)
        label = sitk.Cast(image > 9, sitk.sitkUInt8)
        for voxels, path in ((image, f"imagesTr/{case_id}_0000"), (label, f"labelsTr/{case_id}")):
            sitk.WriteImage(sitk.DICOMOrient(voxels, letters), str(folder / f"{path}.nii.gz"))
    content = {
        "name": "Turned", "modality": {"0": "MR"}, "labels": {"0": "background", "1": "block"},
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
                     for c in orientations],
    }  # fmt: skip
    save_json(content, folder / "dataset.json")
    return folder.name


PLAN = ("-tl", "0", "-tf", "0", "-pl2d", "None")


@pytest.mark.slow
def test_plans_record_the_orientation_that_all_training_cases_share(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = raw_task(home, dict.fromkeys(("a", "b", "c"), "RAS"))
    assert plan(["-t", task, "-tl", "0", "-tf", "0"]) == 0
    for dimension in (2, 3):
        path = home / "preprocessed" / task / f"nnUNetPlansv2.1_plans_{dimension}D.pkl"
        assert load_pickle(path)["orientation"] == load_plans(path).orientation == "RAS"
    said = capsys.readouterr().out
    assert "orientation     RAS\n" in said
    assert "orientation       RAS, to which cases stored otherwise are turned" in said


def test_where_training_cases_differ_none_is_recorded_and_it_is_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = raw_task(home, {"a": "RAS", "b": "LPS", "c": "RAS"})
    assert plan(["-t", task, *PLAN, "-no_pp"]) == 0
    path = home / "preprocessed" / task / "nnUNetPlansv2.1_plans_3D.pkl"
    assert "orientation" not in load_pickle(path)
    said = capsys.readouterr().out
    assert "orientation     2 RAS, 1 LPS: they differ" in said
    assert "orientation       none; cases are taken as stored" in said


def test_cases_are_preprocessed_in_the_orientation_of_plans_that_are_taken_over(
    home: Path,
) -> None:
    task = raw_task(home, dict.fromkeys(("a", "b", "c"), "LPS"))
    assert plan(["-t", task, *PLAN]) == 0
    own = home / "preprocessed" / task
    straight = CaseStore(own / "nnUNetData_plans_v2.1_stage0")
    others = home / "raw_plans.pkl"
    shutil.copy(own / "nnUNetPlansv2.1_plans_3D.pkl", others)
    expected = {i: straight.load(i, unpacked=False) for i in straight.case_ids()}
    for folder in ("raw", "preprocessed"):
        shutil.rmtree(home / folder)
    task = raw_task(home, {"a": "LPS", "b": "PSR", "c": "RAS"})
    taken = ["-pl3d", "ExperimentPlanner3D_v21_Pretrained", "-overwrite_plans", str(others),
             "-overwrite_plans_identifier", "LPS"]  # fmt: skip
    assert plan(["-t", task, *PLAN, *taken]) == 0
    store = CaseStore(own / "nnUNetData_pretrained_LPS_stage0")
    turns = {"a": AS_STORED, "b": Turn("PSR", "LPS"), "c": Turn("RAS", "LPS")}
    for case_id, turn in turns.items():
        assert np.array_equal(store.load(case_id, unpacked=False), expected[case_id])
        assert store.record(case_id).turn == turn
        assert_a_validation_lies_on_the_case(own, store, case_id)


def assert_a_validation_lies_on_the_case(task: Path, store: CaseStore, case_id: str) -> None:
    """The preprocessed label, written as a prediction, is the reference but for resampling."""
    record: CaseRecord = store.record(case_id)
    data = store.load(case_id, unpacked=False)[-1]
    plans = load_plans(task / "nnUNetPlans_pretrained_LPS_plans_3D.pkl")
    probabilities = np.stack([data <= 0, data == 1]).astype(np.float32)
    path = task / f"{case_id}.nii.gz"
    settings = ExportSettings.of(plans)
    label = label_within_box(probabilities, record, settings)
    export_settled(label, None, record, settings, Destination(path=path))
    reference = task / "gt_segmentations" / f"{case_id}.nii.gz"
    found, truth = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (path, reference))
    assert found.shape == truth.shape and (found == truth).mean() > 0.99


def test_what_a_low_resolution_found_is_turned_with_its_case(
    tiny_plans: Callable[[int], Plans], tmp_path: Path
) -> None:
    plans = replace(tiny_plans(3), orientation="LPS")
    prepared = {}
    for name, image in storages().items():
        label = sitk.Cast(image > 9, sitk.sitkUInt8)
        sitk.WriteImage(image, str(tmp_path / f"{name}_0000.nii.gz"))
        sitk.WriteImage(label, str(tmp_path / f"{name}.nii.gz"))
        files = CaseFiles(case_id=name, images=(tmp_path / f"{name}_0000.nii.gz",))
        stored = InputCase(files=files, suffix=".nii.gz", previous=tmp_path / f"{name}.nii.gz")
        prepared[name] = PrepareCase(plans, 0)(stored)[0]
    assert prepared["LPS"].shape[0] == 1 + 2 and prepared["LPS"][1].any()
    for found in prepared.values():
        assert np.array_equal(found, prepared["LPS"])


def test_cases_are_made_again_when_plans_get_another_orientation(
    tiny_plans: Callable[[int], Plans],
) -> None:
    plans = tiny_plans(3)
    recipes = {Preprocessor(replace(plans, orientation=o), 0).recipe for o in (None, "LPS", "RAS")}
    assert len(recipes) == 3
