"""A whole data set: who makes what, and how often a cropped case is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing import pipeline
from nnunetlike.preprocessing.pipeline import preprocess_dataset

SHAPE = (8, 40, 44)
CASES = ("a", "b")
FOUND = Fingerprint(
    sizes=(SHAPE, SHAPE),
    spacings=((3.0, 1.0, 1.0), (3.0, 1.1, 1.1)),
    classes=(1,),
    modalities={0: "MRI"},
    intensities=None,
    size_reductions=dict.fromkeys(CASES, 1.0),
)


@pytest.fixture
def cropped(tmp_path: Path) -> CaseStore:
    store = CaseStore(tmp_path / "cropped")
    rng = np.random.default_rng(0)
    for case, spacing in zip(CASES, FOUND.spacings, strict=True):
        data = rng.normal(100, 20, (2, *SHAPE)).astype(np.float32)
        data[1] = data[1] > 120
        record = CaseRecord(
            original_size=SHAPE, original_spacing=spacing, image_files=("x",), label_file="z",
            itk_origin=(0.0, 0.0, 0.0), itk_spacing=(1.0, 1.0, 3.0),
            itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            crop_box=((0, 8), (0, 40), (0, 44)), classes=(0.0, 1.0), size_after_cropping=SHAPE,
            use_nonzero_mask={0: False},
        )  # fmt: skip
        store.write(case, data, record)
    return store


@pytest.fixture
def planned() -> list[Plans]:
    return [PLANNERS.get(f"ExperimentPlanner{d}_v21").plan(FOUND) for d in ("3D", "2D")]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that tells which cropped cases were read."""
    found: list[str] = []
    load = pipeline.load_cropped

    def noted(store: CaseStore, case_id: str) -> object:
        found.append(case_id)
        return load(store, case_id)

    monkeypatch.setattr(pipeline, "load_cropped", noted)
    return found


def arrays(folder: Path, plans: Plans) -> dict[str, np.ndarray]:
    store = CaseStore(folder / plans.stage_folder(0))
    return {case: store.load(case) for case in store.case_ids()}


def test_a_cropped_case_is_read_once_for_all_its_stages(
    tmp_path: Path, cropped: CaseStore, planned: list[Plans], reads: list[str]
) -> None:
    preprocess_dataset(planned, cropped, tmp_path / "all", CASES, processes=lambda *_: 0)
    assert reads == list(CASES)
    for plans in planned:
        preprocess_dataset([plans], cropped, tmp_path / "each", CASES, processes=lambda *_: 0)
        both = (arrays(tmp_path / where, plans) for where in ("all", "each"))
        for one, other in zip(*(found.values() for found in both), strict=True):
            assert np.array_equal(one, other)


def test_stages_of_other_processes_are_made_apart(
    tmp_path: Path, cropped: CaseStore, planned: list[Plans], reads: list[str]
) -> None:
    preprocess_dataset(
        planned, cropped, tmp_path, CASES, processes=lambda plans, _: planned.index(plans)
    )
    assert reads == [*CASES, *CASES]


def test_only_the_stages_that_lack_a_case_are_made(
    tmp_path: Path, cropped: CaseStore, planned: list[Plans], reads: list[str]
) -> None:
    preprocess_dataset(planned, cropped, tmp_path, CASES, processes=lambda *_: 0)
    kept, lacking = (CaseStore(tmp_path / plans.stage_folder(0)) for plans in planned)
    before = [(kept.folder / name).stat().st_mtime_ns for name in ("b.npz", "b.pkl")]
    (lacking.folder / "b.npz").unlink()
    reads.clear()
    preprocess_dataset(planned, cropped, tmp_path, CASES, processes=lambda *_: 0)
    assert reads == ["b"] and lacking.holds("b")
    assert [(kept.folder / name).stat().st_mtime_ns for name in ("b.npz", "b.pkl")] == before
