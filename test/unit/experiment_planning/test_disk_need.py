from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.core.intact import unpacked_size
from nnunetlike.data.bricks import has_blosc2
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import FORMS, CaseStore, Form
from nnunetlike.experiment_planning.disk_need import disk_need
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.preprocessing.pipeline import preprocess_dataset

SIZES = ((10, 40, 44), (12, 40, 40), (14, 44, 40), (10, 48, 40))
SPACINGS = ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), (2.5, 0.9, 0.9), (3.0, 1.2, 1.2))
FOUND = Fingerprint(
    sizes=SIZES,
    spacings=SPACINGS,
    classes=(1,),
    modalities={0: "T1", 1: "T2"},
    intensities=None,
    size_reductions=dict.fromkeys("abcd", 1.0),
)


def cropped_case(number: int, *, empty_share: float) -> tuple[np.ndarray, CaseRecord]:
    rng = np.random.default_rng(number)
    shape = SIZES[number]
    data = np.zeros((3, *shape), np.float32)
    data[:2] = np.round(rng.normal(100, 20, (2, *shape)))
    data[:2, :, : int(empty_share * shape[1])] = 0
    data[2, 2:6, 25:35, 10:30] = 1
    record = CaseRecord(
        original_size=shape,
        original_spacing=SPACINGS[number],
        image_files=("x", "y"),
        label_file="z",
        itk_origin=(0.0, 0.0, 0.0),
        itk_spacing=(1.0, 1.0, 3.0),
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=((0, shape[0]), (0, shape[1]), (0, shape[2])),
        classes=(0.0, 1.0),
        size_after_cropping=shape,
        use_nonzero_mask={0: False, 1: False},
    )
    return data, record


@pytest.mark.parametrize("empty_share", [0.0, 0.5])
@pytest.mark.parametrize("dimension", ["2D", "3D"])
def test_what_preprocessing_writes_is_foretold_within_a_fifth(
    tmp_path: Path, dimension: str, empty_share: float
) -> None:
    plans = PLANNERS.get(f"ExperimentPlanner{dimension}_v21").plan(FOUND)
    cropped = CaseStore(tmp_path / "cropped")
    for number, case_id in enumerate("abcd"):
        cropped.write(case_id, *cropped_case(number, empty_share=empty_share))
    need = disk_need([plans], cropped)
    forms: list[Form] = ["npz", "npy", "fp16", *(["blosc2"] if has_blosc2() else [])]
    for form in forms:
        preprocess_dataset(
            [plans], cropped, tmp_path, list("abcd"), processes=lambda *_: 0, form=form
        )
        store = CaseStore(tmp_path / plans.stage_folder(0))
        files = [store.array_file(case) for case in "abcd"]
        written = sum(path.stat().st_size for path in files if path is not None)
        assert need.of(form) == pytest.approx(written, rel=0.2), form
        if form == "npz":
            unpacked = sum(unpacked_size(path) for path in files if path is not None)
            assert need.unpacked == need.largest == pytest.approx(unpacked, rel=0.01)


def test_bricks_count_as_npz_where_blosc2_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = PLANNERS.get("ExperimentPlanner3D_v21").plan(FOUND)
    cropped = CaseStore(tmp_path)
    for number, case_id in enumerate("abcd"):
        cropped.write(case_id, *cropped_case(number, empty_share=0.5))
    monkeypatch.setitem(sys.modules, "blosc2", None)
    need = disk_need([plans], cropped)
    assert need.bricks() == need.packed()


def test_needs_of_several_plans_add_up_but_for_the_largest_stage(tmp_path: Path) -> None:
    planned = [PLANNERS.get(f"ExperimentPlanner{d}_v21").plan(FOUND) for d in ("2D", "3D")]
    cropped = CaseStore(tmp_path)
    for number, case_id in enumerate("abcd"):
        cropped.write(case_id, *cropped_case(number, empty_share=0.5))
    flat, deep, both = (disk_need(some, cropped) for some in (planned[:1], planned[1:], planned))
    for form in FORMS:
        assert both.of(form) == pytest.approx(flat.of(form) + deep.of(form), abs=1)
    assert both.largest == max(flat.largest, deep.largest)
    assert disk_need([], cropped).of("npz") == 0


def test_no_case_is_read_for_a_need_that_the_plans_tell(tmp_path: Path) -> None:
    need = disk_need([PLANNERS.get("ExperimentPlanner3D_v21").plan(FOUND)], CaseStore(tmp_path))
    assert need.of("npy") == 2 * need.of("fp16") > 0
    with pytest.raises(DataError, match="does not exist"):
        need.of("npz")
