"""A mended copy: safe repairs only, each told; the task itself keeps every bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core import disk
from nnunetlike.core.errors import DataError, ResourceError, UsageError
from nnunetlike.core.resources import Space
from nnunetlike.data.doctor.examination import Examination, examine_task
from nnunetlike.data.doctor.mend import resample
from nnunetlike.data.doctor.repair import Repaired, copy_folder, repair_task
from nnunetlike.data.doctor.treatment import Orders
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(autouse=True)
def _the_raw_task_keeps_every_bit(task: Any) -> Iterator[None]:
    yield
    assert task.hash_before in (None, tree_hash(task.folder))


@pytest.fixture
def task(task: Any) -> Any:
    task.hash_before = None
    return task


def mend(task: Any, **orders: Any) -> tuple[Repaired, Examination]:
    task.hash_before = tree_hash(task.folder)
    out = task.folder.parent / "Task501_X"
    done = repair_task(task.examine(), out, orders=Orders(**orders), processes=1)
    return done, examine_task(done.folder, processes=1)


def load(folder: Path, name: str) -> Any:
    return np.asarray(nibabel.load(folder / name).dataobj)


def test_a_sound_task_is_copied_as_it_is(task: Any) -> None:
    done, after = mend(task)
    assert done.done == () and after.complaints == ()
    for path in task.folder.rglob("*.nii.gz"):
        assert (done.folder / path.relative_to(task.folder)).read_bytes() == path.read_bytes()


def test_a_copy_in_several_processes_is_the_same(task: Any) -> None:
    task.label("a", 0.99998, dtype=np.float32)
    one, _ = mend(task)
    two = repair_task(
        task.examine(), task.folder.parent / "Task502_X", orders=Orders(), processes=2
    )
    assert one.done == two.done and tree_hash(one.folder) == tree_hash(two.folder)


def test_255_becomes_1(task: Any) -> None:
    task.describe(labels={"0": "background", "1": "x"})
    for case_id in "ab":
        task.label(case_id, 255, 255, 0, 255)
    done, after = mend(task)
    assert done.done[0] == "labelsTr/a.nii.gz: label 255 is now 1"
    assert after.complaints == () and after.voxels_by_label == {0: 234, 1: 6}
    label = load(done.folder, "labelsTr/a.nii.gz")
    assert label.dtype == np.uint8 and set(np.unique(label)) == {0, 1}


def test_gapped_labels_are_renumbered_with_their_names(task: Any) -> None:
    task.describe(labels={"0": "background", "1": "x", "7": "y", "9": "z"})
    task.label("a", 1, 7, 9)
    task.label("b", 1, 9)
    done, after = mend(task)
    assert after.complaints == () and after.voxels_by_label == {0: 235, 1: 2, 2: 1, 3: 2}
    assert after.spec.labels.names == {0: "background", 1: "x", 2: "y", 3: "z"}
    assert "labelsTr/a.nii.gz: label 7 is now 2" in done.done


def test_names_of_v2_stay_in_the_form_of_v2(task: Any) -> None:
    task.describe(labels={"background": 0, "x": 1, "y": 5})
    task.label("a", 1, 5)
    task.label("b", 1)
    done, _ = mend(task)
    assert '"y": 2' in (done.folder / "dataset.json").read_text()


def test_an_uncertain_map_is_done_only_when_asked(task: Any) -> None:
    task.label("a", 1, 2, 7)
    done, after = mend(task)
    assert after.spec.training == ("b",)
    assert done.done[0] == (
        "a: left out, labels with values that dataset.json does not declare (labelsTr/a.nii.gz)"
    )
    asked = repair_task(
        task.examine(),
        task.folder.parent / "Task502_X",
        orders=Orders(label_map={7: 3}),
        processes=1,
    )
    after = examine_task(asked.folder, processes=1)
    assert after.complaints == () and after.spec.labels.names[3] == "label 7"


def test_a_map_that_covers_too_little_leaves_cases_out(task: Any) -> None:
    task.label("a", 1, 2, 7, 8)
    _, after = mend(task, label_map={7: 2})
    assert after.spec.training == ("b",)


def test_nearly_integers_are_rounded_and_stored_as_integers(task: Any) -> None:
    task.label("a", 0.99998, 2.0, dtype=np.float32)
    done, after = mend(task)
    assert done.done == ("labelsTr/a.nii.gz: rounded to integers",)
    assert after.complaints == ()
    assert load(done.folder, "labelsTr/a.nii.gz").dtype == np.uint8


@pytest.mark.parametrize("shift", [1e-4, 0.4])
def test_a_label_less_than_half_a_voxel_off_gets_the_geometry_of_its_image(
    task: Any, shift: float
) -> None:
    task.label("a", 1, 2, origin=(0.0, shift, 0.0))
    done, after = mend(task)
    assert done.done == ("labelsTr/a.nii.gz: has the geometry of imagesTr/a_0000.nii.gz now",)
    assert after.complaints == ()
    assert np.array_equal(load(done.folder, "labelsTr/a.nii.gz"), task.voxels("labelsTr/a.nii.gz"))
    affines = [
        nibabel.load(done.folder / name).affine
        for name in ("labelsTr/a.nii.gz", "imagesTr/a_0000.nii.gz")
    ]
    assert np.array_equal(*affines)


def test_a_label_two_voxels_off_is_left_out_unless_told_which_is_right(task: Any) -> None:
    task.label("a", 0, 0, 1, 2, origin=(-2.0, 0.0, 0.0))
    _, after = mend(task)
    assert after.spec.training == ("b",)


@pytest.mark.parametrize(("grid", "where"), [("copy", [2, 3]), ("resample", [0, 1])])
def test_a_label_two_voxels_off_is_mended_as_told(task: Any, grid: str, where: list[int]) -> None:
    task.label("a", 0, 0, 1, 2, origin=(-2.0, 0.0, 0.0))
    done, after = mend(task, grid=grid)
    assert not after.errors
    row = load(done.folder, "labelsTr/a.nii.gz")[:, 0, 0]
    expected = np.zeros(6)
    expected[where] = 1, 2
    assert row.tolist() == expected.tolist()


def test_a_channel_off_its_grid_cannot_be_mended(task: Any) -> None:
    task.image("imagesTr/a_0001", origin=(0.0, 0.4, 0.0))
    _, after = mend(task, grid="copy")
    assert after.spec.training == ("b",)


@pytest.mark.parametrize(("fill", "value"), [("minimum", -3.0), (0.0, 0.0)])
def test_voxels_that_are_not_finite_are_filled_when_asked(
    task: Any, fill: Any, value: float
) -> None:
    voxels = np.full((4, 5, 6), -3.0, np.float32)
    voxels[0, 0, 0], voxels[1, 1, 1] = np.nan, np.inf
    task.write("imagesTr/a_0000.nii.gz", voxels, origin=(0.1, 0.2, 0.3))
    for name in ("imagesTr/a_0001",):
        task.image(name, origin=(0.1, 0.2, 0.3))
    task.label("a", 1, 2, origin=(0.1, 0.2, 0.3))
    done, after = mend(task, fill=fill)
    assert after.complaints == ()
    assert done.done == (
        f"imagesTr/a_0000.nii.gz: 2 voxels that were not finite are now {value:.6g}",
    )
    filled = nibabel.load(done.folder / "imagesTr/a_0000.nii.gz")
    assert filled.get_data_dtype() == np.float32
    assert np.asarray(filled.dataobj)[0, 0, 0] == value
    source = nibabel.load(task.folder / "imagesTr/a_0000.nii.gz")
    assert np.array_equal(filled.affine, source.affine)


def test_voxels_that_are_not_finite_stay_out_unless_asked(task: Any) -> None:
    task.write("imagesTr/a_0000.nii.gz", np.full((4, 5, 6), np.nan, np.float32))
    _, after = mend(task)
    assert after.spec.training == ("b",)


def test_voxels_of_nrrd_are_filled_too(task: Any) -> None:
    for path in task.folder.rglob("*.nii.gz"):
        voxels, grid = sitk.GetArrayFromImage(sitk.ReadImage(str(path))), path
        if path.name == "a_0000.nii.gz":
            voxels = voxels.copy()
            voxels[0, 0, 0] = np.nan
        name = path.relative_to(task.folder).as_posix().replace(".nii.gz", ".nrrd")
        task.write(name, voxels)
        grid.unlink()
    task.describe(
        file_ending=".nrrd",
        training=[{"image": f"{c}.nrrd", "label": f"{c}.nrrd"} for c in "ab"],
        test=["t.nrrd"],
    )
    assert "not_finite" in task.found()
    done, after = mend(task, fill="minimum")
    assert after.complaints == ()
    assert "imagesTr/a_0000.nrrd: 1 voxels that were not finite are now 1" in done.done


def test_names_get_their_channel_number(task: Any) -> None:
    task.one_channel()
    for home in ("imagesTr", "imagesTs"):
        for path in (task.folder / home).iterdir():
            path.rename(path.with_name(path.name.replace("_0000", "")))
    done, after = mend(task)
    assert after.complaints == ()
    assert "imagesTr/a.nii.gz: named a_0000.nii.gz" in done.done


def test_identifiers_lose_their_channel_number(task: Any) -> None:
    task.describe(training=[{"image": "imagesTr/a_0000.nii.gz"}, task.entry("b")])
    _, after = mend(task)
    assert after.complaints == () and after.spec.training == ("a", "b")


def test_what_cannot_be_mended_is_left_out_and_named(task: Any) -> None:
    (task.folder / "imagesTr" / "a_0001.nii.gz").unlink()
    (task.folder / "imagesTs" / "t_0000.nii.gz").write_bytes(b"no image")
    task.label("z", 1)
    done, after = mend(task)
    assert after.complaints == ()
    assert (after.spec.training, after.spec.test) == (("b",), ())
    assert done.done == (
        "a: left out, images that are missing (imagesTr/a_0001.nii.gz)",
        "t: left out, files that cannot be read (imagesTs/t_0000.nii.gz)",
        "labelsTr/z.nii.gz: not copied",
        "dataset.json: numTraining was 2, is 1",
        "dataset.json: 1 of 2 entries of 'training' are left",
        "dataset.json: 0 of 1 entries of 'test' are left",
    )


def test_duplicates_and_counts_are_corrected(task: Any) -> None:
    task.describe(training=[task.entry(c) for c in "aba"], numTraining=3)
    done, after = mend(task)
    assert after.complaints == ()
    assert done.done[0] == "dataset.json: numTraining was 3, is 2"


def test_unlisted_test_images_are_copied(task: Any) -> None:
    task.describe(test=[])
    done, _ = mend(task)
    assert (done.folder / "imagesTs" / "t_0001.nii.gz").is_file()


def test_nothing_is_written_if_no_case_is_left(task: Any) -> None:
    for case_id in "ab":
        (task.folder / "labelsTr" / f"{case_id}.nii.gz").unlink()
    with pytest.raises(DataError, match="no training case of Task001_X"):
        mend(task)
    assert not (task.folder.parent / "Task501_X").exists()


def test_an_unusable_description_must_be_edited(task: Any) -> None:
    task.describe(modality={"0": "T1", "3": "T2"})
    with pytest.raises(DataError, match=r"Edit dataset\.json first"):
        mend(task)


def test_a_full_disk_is_noticed_before_anything_is_written(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "disk_space", lambda folder: Space(total=100, free=10))
    with pytest.raises(ResourceError, match="the mended copy of Task001_X needs about"):
        mend(task)
    assert not (task.folder.parent / "Task501_X").exists()


def test_the_copy_lies_in_a_task_folder(tmp_path: Path) -> None:
    assert copy_folder(tmp_path / "Task501_Y", "Task001_X") == tmp_path / "Task501_Y"
    assert copy_folder(tmp_path / "fixed", "Task001_X") == tmp_path / "fixed" / "Task001_X"
    (tmp_path / "fixed").mkdir()
    assert copy_folder(tmp_path / "fixed", "Task001_X") == tmp_path / "fixed" / "Task001_X"
    (tmp_path / "fixed" / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        copy_folder(tmp_path / "fixed", "Task001_X")


def test_the_copy_never_lies_within_the_task(task: Any) -> None:
    task.hash_before = tree_hash(task.folder)
    with pytest.raises(UsageError, match="lies within the raw task"):
        repair_task(task.examine(), task.folder / "Task501_X", orders=Orders(), processes=1)


def test_resampling_onto_a_finer_grid_repeats_voxels() -> None:
    coarse = Geometry(shape=(1, 2, 2), spacing=(1.0, 2.0, 2.0))
    fine = Geometry(shape=(1, 4, 4), spacing=(1.0, 1.0, 1.0), origin=(-0.5, -0.5, 0.0))
    label = np.array([[[1, 2], [3, 4]]])
    assert resample(label, coarse, fine)[0].tolist() == np.kron(label[0], np.ones((2, 2))).tolist()


def test_pictures_keep_their_format(tmp_path: Path, task: Any) -> None:
    folder = tmp_path / "pictures" / "Task003_P"
    flat = Geometry(shape=(1, 5, 6), spacing=(999.0, 1.0, 1.0), leading="single")
    for home in ("imagesTr", "labelsTr"):
        (folder / home).mkdir(parents=True)
    for case_id in "ab":
        for name in (f"imagesTr/{case_id}_0000.png", f"labelsTr/{case_id}.png"):
            voxels = np.full((1, 5, 6), 255, np.uint8)
            voxels[0, 0] = 0
            format_of(folder / name).write_label(voxels, flat, folder / name)
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "grey"}, "labels": {"background": 0, "cell": 1}, '
        '"numTraining": 2, "file_ending": ".png"}'
    )
    examination = examine_task(folder, processes=1)
    assert {c.kind.name for c in examination.errors} == {"undeclared_label"}
    done = repair_task(examination, tmp_path / "Task503_P", orders=Orders(), processes=1)
    after = examine_task(done.folder, processes=1)
    assert after.complaints == () and after.voxels_by_label == {0: 12, 1: 48}
    assert done.done[0] == "labelsTr/a.png: label 255 is now 1"
