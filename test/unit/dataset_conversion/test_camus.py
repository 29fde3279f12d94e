"""CAMUS to raw tasks; everything here is synthetic but for the fixture `shared`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import VideoFacts
from nnunetlike.run.convert_camus_task import main

SIZE = (30, 20)
"""(H, W): not square."""

SPACING = (0.5, 0.25)
"""mm along x and y: not alike."""


def masks(radii: Sequence[float]) -> Any:
    """Cavities with wall and atrium, (T, H, W)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    label = np.zeros((len(radii), *SIZE), np.uint8)
    for t, radius in enumerate(radii):
        distance = np.hypot(y - 10, x - 10)
        label[t][distance < radius + 2] = 2
        label[t][distance < radius] = 1
    label[:, 24:28, 6:14] = 3
    return label


def write(path: Path, voxels: Any) -> None:
    """Write (T, H, W) as NIfTI (X, Y, T), or one frame as (X, Y), at an odd place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = voxels[0].T if len(voxels) == 1 else voxels.transpose(2, 1, 0)
    affine = np.diag([-SPACING[0], -SPACING[1], 1, 1])
    affine[:3, 3] = (7, 8, 9)
    nibabel.save(nibabel.Nifti1Image(axes, affine), path)


def add_patient(
    home: Path, number: int, *, radii: Sequence[float] = (8, 7, 6, 5), ed: int = 1, es: int = 4,
    views: Sequence[str] = ("2CH", "4CH"),
) -> Path:  # fmt: skip
    """Add a patient with half sequences."""
    folder = home / f"patient{number:04d}"
    for view in views:
        label = masks(radii)
        name = f"{folder.name}_{view}"
        write(folder / f"{name}_half_sequence.nii.gz", (10 + 40 * label).astype(np.uint8))
        write(folder / f"{name}_half_sequence_gt.nii.gz", label)
        (folder / f"Info_{view}.cfg").write_text(
            f"ED: {ed}\nES: {es}\nNbFrame: {len(radii)}\nSex: F\nAge: 60\nImageQuality: Good\n"
            "EF: 55\nFrameRate: 48.5\n"
        )
    return folder


@pytest.fixture
def camus(home: Path) -> Path:
    """Two patients with two views each."""
    source = home / "CAMUS_public" / "database_nifti"
    add_patient(source, 1)
    add_patient(source, 2)
    return source


def convert(source: Path, *words: object) -> int:
    return main(["-i", str(source), "-output_task_id", "27", "-p", "0", *map(str, words)])


def task(home: Path) -> Path:
    return home / "raw" / "nnUNet_raw_data" / "Task027_CAMUS"


def facts(home: Path, case: str, part: str = "Tr") -> VideoFacts:
    return VideoFacts.load(task(home) / f"cases{part}" / f"{case}.json")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.rpartition("error: ")[2].strip()


def test_half_sequences_become_videos_with_all_frames_labelled(home: Path, camus: Path) -> None:
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in camus.rglob("*.*")}
    assert convert(camus) == 0
    spec = DatasetSpec.load(task(home) / "dataset.json")
    assert spec.training == tuple(f"patient000{n}_{v}" for n in (1, 2) for v in ("2CH", "4CH"))
    assert facts(home, "patient0001_2CH") == VideoFacts(
        patient="patient0001", labelled_frames=(0, 1, 2, 3), view="2CH", fps=48.5, ed=0, es=3,
        quality="Good", ef=55.0,
    )  # fmt: skip
    label = format_of(Path("x.nii.gz")).read_label(task(home) / "labelsTr/patient0001_2CH.nii.gz")
    np.testing.assert_array_equal(label[0], masks((8, 7, 6, 5)))
    content = json.loads((task(home) / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "LV": 1, "MYO": 2, "LA": 3, "ignore": 4}
    assert content["video"]["supervision"] == "all"
    assert {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in camus.rglob("*.*")} == before


def test_systole_first_unequal_spacing_and_sides_are_kept(home: Path, camus: Path) -> None:
    folder = add_patient(camus, 3, radii=(5, 6, 8), ed=3, es=1)
    assert convert(camus) == 0
    found = facts(home, "patient0003_4CH")
    assert (found.ed, found.es) == (2, 0)
    for part, what in (("images", "_0000"), ("labels", "")):
        made = nibabel.load(task(home) / f"{part}Tr" / f"patient0003_4CH{what}.nii.gz")
        gt = "_gt" if part == "labels" else ""
        source = nibabel.load(folder / f"patient0003_4CH_half_sequence{gt}.nii.gz")
        assert made.shape == (20, 30, 3) == source.shape
        np.testing.assert_allclose(made.affine, source.affine, atol=1e-6)
        np.testing.assert_array_equal(made.get_fdata(), source.get_fdata())
        np.testing.assert_allclose(made.header.get_zooms()[:2], SPACING)


def test_masks_that_contradict_the_info_file_win_and_are_told(
    home: Path, camus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_patient(camus, 3, radii=(5, 6, 8), ed=1, es=3, views=("4CH",))
    assert convert(camus) == 0
    found = facts(home, "patient0003_4CH")
    assert (found.ed, found.es) == (2, 0)
    assert (
        "note: patient0003_4CH: ED was to be frame 0 and ES frame 2, but the cavity has 69 pixels "
        "in the one and 193 in the other: ED is frame 2, ES frame 0" in capsys.readouterr().out
    )


def test_pictures_of_diastole_and_systole_become_two_frames(home: Path) -> None:
    source = home / "database_nifti"
    folder = source / "patient0009"
    for phase, radius in (("ED", 8.0), ("ES", 5.0)):
        label = masks([radius])
        write(folder / f"patient0009_4CH_{phase}.nii.gz", label * 50.5)
        write(folder / f"patient0009_4CH_{phase}_gt.nii.gz", label.astype(np.float32))
    assert convert(source) == 0
    found = facts(home, "patient0009_4CH")
    assert (found.labelled_frames, found.ed, found.es, found.fps) == ((0, 1), 0, 1, None)
    image, grid = format_of(Path("x.nii.gz")).read(
        [task(home) / "imagesTr/patient0009_4CH_0000.nii.gz"]
    )
    assert image.shape == (1, 2, *SIZE)
    assert grid.spacing == (1.0, SPACING[1], SPACING[0])
    np.testing.assert_array_equal(image[0], masks((8, 5)) * 50.5)


def test_the_official_lists_send_testing_patients_to_the_test_folder(
    home: Path, camus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = camus.parent / "database_split"
    lists.mkdir()
    add_patient(camus, 3)
    (lists / "subgroup_training.txt").write_text("patient0001\npatient0077\n")
    (lists / "subgroup_validation.txt").write_text("patient0003\n")
    (lists / "subgroup_testing.txt").write_text("patient0002")
    assert convert(camus) == 0
    spec = DatasetSpec.load(task(home) / "dataset.json")
    assert spec.test == ("patient0002_2CH", "patient0002_4CH")
    assert len(spec.training) == 4
    splits = [facts(home, f"patient000{n}_4CH").split for n in (1, 3)]
    assert [*splits, facts(home, "patient0002_4CH", "Ts").split] == ["train", "val", "test"]
    assert (task(home) / "labelsTs/patient0002_4CH.nii.gz").exists()
    out = capsys.readouterr().out
    assert "of the lists in" in out and "are not among the files: patient0077" in out
    assert (
        "6 videos of 3 patients (2 training, 2 test, 2 validation), 24 labelled frames of 24, "
        "views 3 2CH, 3 4CH; supervision: all" in out
    )
    assert "next: nnUNet_plan_and_preprocess -t 27 --verify_dataset_integrity" in out


def test_the_lists_of_400_50_and_50_patients_load(home: Path) -> None:
    from nnunetlike.dataset_conversion.camus import _splits

    names = [f"patient{n:04d}" for n in range(1, 501)]
    for name, part in (("training", names[:400]), ("validation", names[400:450]),
                       ("testing", names[450:])):  # fmt: skip
        (home / f"subgroup_{name}.txt").write_text("\n".join(part) + "\n")
    found, notes = _splits(home, home, names)
    assert [list(found.values()).count(s) for s in ("train", "val", "test")] == [400, 50, 50]
    assert notes == []


def test_supervision_of_the_ends_alone_keeps_the_other_labels(home: Path, camus: Path) -> None:
    assert convert(camus, "--supervision", "edes") == 0
    content = json.loads((task(home) / "dataset.json").read_text())
    assert content["video"]["supervision"] == "edes"
    assert facts(home, "patient0001_2CH").labelled_frames == (0, 1, 2, 3)


def test_a_patient_in_two_lists_is_an_error(
    home: Path, camus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "lists").mkdir()
    for name, patients in (("training", "patient0001"), ("testing", "patient0001 patient0002")):
        (home / "lists" / f"subgroup_{name}.txt").write_text(patients)
    assert convert(camus, "--split_folder", home / "lists") == 3
    assert error_of(capsys) == (
        f"{home / 'lists'}: 1 patient(s) are in two lists: patient0001 in train and test. A "
        "patient must be in one only, or the test is no test. Correct the lists"
    )
    assert not task(home).exists()


def test_a_folder_without_lists_that_was_given_is_an_error(
    home: Path, camus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(camus, "--split_folder", home) == 3
    assert "holds no subgroup_training.txt" in error_of(capsys)


def broken(camus: Path, what: str) -> str:
    """Break patient 1's 4CH view in a way; return the message that the command must give."""
    folder = camus / "patient0001"
    sequence = folder / "patient0001_4CH_half_sequence.nii.gz"
    gt = folder / "patient0001_4CH_half_sequence_gt.nii.gz"
    if what == "missing":
        gt.unlink()
        return f"{gt.name} is missing, the masks of {sequence.name}. Download the patient again"
    if what == "frames":
        write(gt, masks((8, 7, 6)))
        return f"{gt.name} has 3 frames, but {sequence.name} 4. Download the patient again"
    if what == "stated":
        info = folder / "Info_4CH.cfg"
        info.write_text(info.read_text().replace("NbFrame: 4", "NbFrame: 9"))
        return (
            f"{sequence} has 4 frames, but Info_4CH.cfg says NbFrame: 9. Download the patient again"
        )
    if what == "beyond":
        info = folder / "Info_4CH.cfg"
        info.write_text(info.read_text().replace("ES: 4", "ES: 5"))
        return f"Info_4CH.cfg says ES: 5, but {sequence} has the frames 1 to 4. Correct the file"
    label = masks((8, 7, 6, 5))
    label[2, 0, 0] = 255
    write(gt, label)
    return f"frame 2 ({gt.name}) holds the label 255, but labels are 0 to 3. Export the masks anew"


@pytest.mark.parametrize("what", ["missing", "frames", "stated", "beyond", "255"])
def test_bad_data_is_an_error_that_names_the_case_and_writes_nothing(
    home: Path, camus: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = broken(camus, what)
    assert convert(camus) == 3
    assert error_of(capsys) == (
        f"1 of 4 videos cannot be converted, so no task was written:\n  patient0001_4CH: {message}"
    )
    assert list((home / "raw" / "nnUNet_raw_data").iterdir()) == []


def test_a_folder_without_patients_is_an_error(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "elsewhere").mkdir()
    assert convert(home) == 3
    assert error_of(capsys) == (
        f"{home} holds no folder patientXXXX; it holds elsewhere. Give the folder database_nifti "
        "of the NIfTI release"
    )


def test_the_set_with_only_diastole_and_systole_is_converted(home: Path, shared: Path) -> None:
    assert convert(shared / "data" / "CAMUS_4CH", "-p", 2) == 0
    spec = DatasetSpec.load(task(home) / "dataset.json")
    assert len(spec.training) == 8
    for case in spec.training:
        source = shared / "data/CAMUS_4CH/database_nifti" / case.removesuffix("_4CH")
        label = nibabel.load(task(home) / "labelsTr" / f"{case}.nii.gz")
        for t, phase in enumerate(("ED", "ES")):
            picture = nibabel.load(source / f"{case}_{phase}_gt.nii.gz")
            np.testing.assert_array_equal(label.get_fdata()[..., t], picture.get_fdata())
        found = facts(home, case)
        assert (found.ed, found.es, found.labelled_frames) == (0, 1, (0, 1))
