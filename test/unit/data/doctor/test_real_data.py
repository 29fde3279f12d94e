"""The doctor on real data: sound, corrupt, not finite, with odd labels, of other formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.data.doctor.examination import Examination, examine_task
from nnunetlike.data.doctor.repair import repair_task
from nnunetlike.data.doctor.treatment import Orders
from nnunetlike.dataset_conversion.decathlon import convert_task


def convert(shared: Path, name: str) -> Path:
    return convert_task(shared / "data" / name, processes=1).folder


def lay_out(
    source: Path,
    target: Path,
    ending: str,
    cases: Mapping[str, tuple[str, str | None]],
    **content: Any,
) -> Path:
    """Lay real files out as a raw task: case to image and label."""
    for home in ("imagesTr", "labelsTr"):
        (target / home).mkdir(parents=True)
    for case_id, (image, label) in cases.items():
        shutil.copyfile(source / image, target / "imagesTr" / f"{case_id}_0000{ending}")
        if label is not None:
            shutil.copyfile(source / label, target / "labelsTr" / f"{case_id}{ending}")
    described = {
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "x"},
        "numTraining": len(cases),
        "training": [{"image": f"{c}{ending}", "label": f"{c}{ending}"} for c in cases],
        **content,
    }
    (target / "dataset.json").write_text(json.dumps(described))
    return target


def kinds(examination: Examination) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for complaint in examination.complaints:
        found.setdefault(complaint.kind.name, []).append(complaint.file)
    return found


def mended(folder: Path, out: Path, **orders: Any) -> tuple[Examination, tuple[str, ...]]:
    examination = examine_task(folder, processes=1)
    done = repair_task(examination, out, orders=Orders(**orders), processes=1)
    return examine_task(done.folder, processes=1), done.done


@pytest.mark.slow
def test_hippocampus_is_sound(shared: Path, home: Path) -> None:
    found = examine_task(convert(shared, "Task04_Hippocampus"), processes=1)
    assert (len(found.spec.training), len(found.spec.test), found.complaints) == (156, 1, ())


def test_the_unconverted_hippocampus_lacks_its_channel_numbers(shared: Path) -> None:
    found = examine_task(shared / "data" / "Task04_Hippocampus_corrupt", processes=1)
    assert kinds(found)["no_channel_number"] == [
        f"imagesTr/hippocampus_{number}.nii.gz" for number in ("001", "004", "118")
    ]


def test_every_missing_file_of_the_corrupt_hippocampus_is_named(shared: Path, home: Path) -> None:
    folder = convert(shared, "Task04_Hippocampus_corrupt")
    assert kinds(examine_task(folder, processes=1)) == {
        "missing_image": [
            "imagesTr/hippocampus_010_0000.nii.gz",
            "imagesTr/hippocampus_281_0000.nii.gz",
        ],
        "missing_label": ["labelsTr/hippocampus_118.nii.gz"],
    }
    after, _ = mended(folder, home / "Task504_X")
    assert after.complaints == ()
    assert after.spec.training == ("hippocampus_001", "hippocampus_004")


def test_every_other_size_of_the_repaired_hippocampus_is_named(shared: Path, home: Path) -> None:
    folder = convert(shared, "Task04_Hippocampus_corrupt_repaired_shapes")
    examination = examine_task(folder, processes=1)
    first, second = (str(complaint) for complaint in examination.errors)
    assert "labelsTr/hippocampus_010.nii.gz: found 31×50×36 voxels (D × H × W)" in first
    assert "expected 26×166×164 voxels" in first
    assert "labelsTr/hippocampus_281.nii.gz: found 94×512×512 voxels (D × H × W)" in second
    assert "expected 33×52×37 voxels" in second
    after, _ = mended(folder, home / "Task504_X")
    assert after.complaints == () and len(after.spec.training) == 2


SPINE = {
    "t2": ("t2/t2.nii.gz", "t2/t2_seg-manual.nii.gz"),
    "lesion": ("t2/t2_fake_lesion.nii.gz", "t2/t2_fake_lesion_sc_seg.nii.gz"),
    "t1": ("t1/t1w.nii.gz", "t1/t1w_seg-manual.nii.gz"),
    "t2s": ("t2s/t2s.nii.gz", "t2s/t2s_seg.nii.gz"),
    "mt1": ("mt/mt1.nii.gz", "mt/mt1_seg.nii.gz"),
    "mtr": ("mt/mtr.nii.gz", "mt/mt1_seg.nii.gz"),
    "dmri": ("dmri/dmri.nii.gz", None),
}


def test_the_spinal_cords_faults_are_found_and_mended(shared: Path, tmp_path: Path) -> None:
    folder = lay_out(
        shared / "data" / "sct_spinalcord", tmp_path / "Task010_Cord", ".nii.gz", SPINE
    )
    examination = examine_task(folder, processes=1)
    assert kinds(examination) == {
        "missing_label": ["labelsTr/dmri.nii.gz"],
        "rounded_grid": ["labelsTr/mt1.nii.gz", "labelsTr/mtr.nii.gz"],
        "not_finite": ["imagesTr/mtr_0000.nii.gz"],
        "unreadable": ["imagesTr/dmri_0000.nii.gz"],
        "mixed_orientation": ["imagesTr"],
    }
    (values,) = (c.found for c in examination.errors if c.kind.name == "not_finite")
    assert values == "633 of 8000 voxels not finite"
    (mixed,) = examination.warnings
    assert "PSR in 2 cases (t2, …)" in mixed.found
    after, done = mended(folder, tmp_path / "Task510_Cord", fill="minimum")
    assert kinds(after) == {"mixed_orientation": ["imagesTr"]}
    assert after.spec.training == ("t2", "lesion", "t1", "t2s", "mt1", "mtr")
    assert any("633 voxels that were not finite are now -1655.24" in text for text in done)


PHANTOM = {
    name: (f"{name}_image.nrrd", f"{name}_label.nrrd")
    for name in ("brain1", "brain2", "breast1", "prostate_phantom")
}


@pytest.mark.parametrize(
    ("labels", "orders"),
    [
        ({"0": "background", "1": "x", "7": "a", "8": "b", "9": "c"}, {}),
        ({"0": "background", "1": "x"}, {"label_map": {7: 2, 8: 3, 9: 4}}),
    ],
)
def test_the_phantoms_labels_become_consecutive(
    shared: Path, tmp_path: Path, labels: dict[str, str], orders: dict[str, Any]
) -> None:
    source = shared / "data" / "pyradiomics_nrrd"
    folder = lay_out(source, tmp_path / "Task011_P", ".nrrd", PHANTOM, labels=labels)
    before = examine_task(folder, processes=1)
    assert {0, 1, 7, 8, 9} == set(before.voxels_by_label)
    (error,) = before.errors
    assert error.kind.name == ("gapped_labels" if len(labels) == 5 else "undeclared_label")
    if orders:
        assert "--map=7:2,8:3,9:4" in error.remedy
    after, _ = mended(folder, tmp_path / "Task511_P", **orders)
    assert not after.errors and len(after.spec.training) == 4
    assert set(after.voxels_by_label) == {0, 1, 2, 3, 4}
    assert list(after.voxels_by_label.values()) == list(before.voxels_by_label.values())


def test_of_nibabels_files_the_volume_is_sound_and_4d_is_refused(
    shared: Path, tmp_path: Path
) -> None:
    source = shared / "data" / "nibabel_readers"
    files = {"volume": ("anatomical.nii", None), "time": ("functional.nii", None)}
    folder = lay_out(source, tmp_path / "Task012_N", ".nii", files)
    found = {c.file: c.found for c in examine_task(folder, processes=1).errors}
    assert "imagesTr/volume_0000.nii" not in found
    assert "dimensions" in found["imagesTr/time_0000.nii"]
    assert "nnUNet_convert_decathlon_task" in found["imagesTr/time_0000.nii"]
