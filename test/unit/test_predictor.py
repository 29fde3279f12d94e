"""A trained model used from a program."""

from __future__ import annotations

import copy
import gc
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike import Predictor
from nnunetlike.core.errors import DataError, ShapeError, UsageError
from nnunetlike.core.serialization import save_json
from nnunetlike.plans.plans import Plans

SHAPE = (9, 20, 18)
SPACING = (1.5, 1.0, 0.8)


@pytest.fixture
def model(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> Path:
    return save_tiny_model(tmp_path / "nnUNetTrainerV2__nnUNetPlansv2.1", tiny_plans(3))


@pytest.fixture
def predictor(model: Path) -> Predictor:
    return Predictor.from_folder(model, device="cpu", tta=False)


def voxels(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 2, shape).astype(np.float32)


def as_itk(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((3.0, -7.0, 11.0))
    image.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    return image


def test_array_image_and_file_have_the_same_labels(predictor: Predictor, tmp_path: Path) -> None:
    array = voxels()
    image = as_itk(array)
    sitk.WriteImage(image, str(tmp_path / "a_0000.nii.gz"))
    expected = predictor.predict(array, spacing=SPACING)
    assert isinstance(expected, np.ndarray)
    assert expected.shape == SHAPE and len(np.unique(expected)) > 1
    path = tmp_path / "a_0000.nii.gz"
    for source in (array[None], image, [image], path, str(path), [path]):
        words = {"spacing": SPACING} if isinstance(source, np.ndarray) else {}
        found = predictor.predict(source, **words)
        label = found if isinstance(found, np.ndarray) else sitk.GetArrayFromImage(found)
        assert np.array_equal(label, expected)


def test_a_simpleitk_image_comes_back_on_its_own_grid(predictor: Predictor) -> None:
    image = as_itk(voxels())
    label = predictor.predict(image)
    assert isinstance(label, sitk.Image)
    for fact in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
        assert getattr(label, fact)() == getattr(image, fact)()


def test_a_flat_simpleitk_image_comes_back_flat(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    flat = Predictor.from_folder(save_tiny_model(tmp_path / "T__P", tiny_plans(2)), device="cpu")
    image = sitk.GetImageFromArray(voxels(shape=(20, 18)))
    label = flat.predict(image)
    assert isinstance(label, sitk.Image)
    assert label.GetSize() == (18, 20)
    array = flat.predict(voxels(shape=(1, 20, 18)), spacing=(999, 1, 1))
    assert np.array_equal(array[0], sitk.GetArrayFromImage(label))  # type: ignore[index]  # an array


def test_probabilities_lie_on_the_image_and_agree_with_the_labels(predictor: Predictor) -> None:
    array = voxels()
    array[:2] = 0  # is cropped away
    label, probabilities = predictor.predict(array, spacing=SPACING, probabilities=True)
    assert probabilities.shape == (3, *SHAPE) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (probabilities[0, :2] == 1).all()
    assert (np.argmax(probabilities, 0) == label).mean() > 0.999


def test_an_array_without_spacing_is_refused_with_the_order_of_axes(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match=r"spacing=\(D, H, W\) in mm"):
        predictor.predict(voxels())
    for wrong in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(UsageError, match="three numbers above 0"):
            predictor.predict(voxels(), spacing=wrong)


def test_a_spacing_beside_an_image_that_knows_its_own_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="know their own"):
        predictor.predict(as_itk(voxels()), spacing=SPACING)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (voxels(shape=(20, 18)), ShapeError, r"picture\[None\]"),
        (voxels(shape=(2, *SHAPE)), DataError, "2 channel.* trained on 1: 0 MR"),
        (np.zeros(SHAPE, np.float32), DataError, "array: the image is zero everywhere"),
    ],
)
def test_an_array_that_cannot_be_predicted_is_refused(
    predictor: Predictor, image: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        predictor.predict(image, spacing=SPACING)


def test_what_is_no_image_is_refused_by_its_kind(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="not dict"):
        predictor.predict({"image": 1})  # type: ignore[arg-type]  # what users try
    with pytest.raises(UsageError, match="not an empty list"):
        predictor.predict([])
    with pytest.raises(DataError, match="does not exist"):
        predictor.predict("nowhere.nii.gz")


def test_channels_on_different_grids_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ShapeError, match="one grid"):
        predictor.predict([as_itk(voxels()), as_itk(voxels(shape=(4, 5, 6)))])


def test_components_of_an_image_are_channels(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    plans = replace(
        tiny_plans(3),
        modalities={0: "T1", 1: "T2"},
        normalization_schemes={0: "nonCT", 1: "nonCT"},
        use_mask_for_norm={0: False, 1: False},
    )
    two = Predictor.from_folder(save_tiny_model(tmp_path / "T__P", plans), device="cpu", tta=False)
    channels = [as_itk(voxels(0)), as_itk(voxels(1))]
    joined = two.predict(sitk.Compose(channels))
    apart = two.predict(channels)
    stacked = two.predict(np.stack([voxels(0), voxels(1)]), spacing=SPACING)
    assert np.array_equal(sitk.GetArrayFromImage(joined), stacked)
    assert np.array_equal(sitk.GetArrayFromImage(apart), stacked)


def test_arguments_are_left_as_they_are(predictor: Predictor) -> None:
    array = voxels()
    array[0, 0, 0] = np.nan
    before = array.copy()
    predictor.predict(array, spacing=SPACING)
    assert np.array_equal(array, before, equal_nan=True)


def test_folds_are_averaged_and_chosen(
    model: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    save_tiny_model(model, tiny_plans(3), seed=1)
    chances = {}
    for folds in ((0,), (1,), None):
        one = Predictor.from_folder(model, folds, device="cpu", tta=False)
        chances[folds] = one.predict(voxels(), spacing=SPACING, probabilities=True)[1]
    mean = (chances[0,] + chances[1,]) / 2
    assert np.allclose(chances[None], mean, atol=1e-5)


def test_the_postprocessing_of_the_model_is_applied(model: Path) -> None:
    rules = {"for_which_classes": [[1, 2]], "min_valid_object_sizes": "None"}
    before = Predictor.from_folder(model, device="cpu").predict(voxels(), spacing=SPACING)
    save_json(rules, model / "postprocessing.json")
    after = Predictor.from_folder(model, device="cpu").predict(voxels(), spacing=SPACING)
    assert 0 < (np.asarray(after) > 0).sum() < (np.asarray(before) > 0).sum()


def test_cases_come_back_in_order_and_as_from_predict(predictor: Predictor) -> None:
    arrays = [voxels(seed) for seed in range(5)]
    cases = [{"image": array, "spacing": SPACING} for array in arrays]
    found = list(predictor.predict_cases(cases))
    assert [case for case, _ in found] == cases
    for array, (_, label) in zip(arrays, found, strict=True):
        assert np.array_equal(label, predictor.predict(array, spacing=SPACING))


def test_at_most_two_cases_are_in_hand(predictor: Predictor) -> None:
    taken = returned = 0

    def cases() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for seed in range(6):
            taken += 1
            assert taken - returned <= 2
            yield {"image": voxels(seed), "spacing": SPACING}

    for _ in predictor.predict_cases(cases()):
        returned += 1
    assert (taken, returned) == (6, 6)


def test_reading_one_case_overlaps_the_network_on_another(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of the first case waits until the second is being opened."""
    from nnunetlike import predictor as module  # the module, not the class

    second_is_opened = threading.Event()
    opened: list[int] = []
    open_image, mean_over_folds = module.open_image, module.mean_over_folds

    def opening(*arguments: Any) -> Any:
        opened.append(1)
        if len(opened) == 2:
            second_is_opened.set()
        return open_image(*arguments)

    def computing(*arguments: Any) -> Any:
        assert second_is_opened.wait(60)
        return mean_over_folds(*arguments)

    monkeypatch.setattr(module, "open_image", opening)
    monkeypatch.setattr(module, "mean_over_folds", computing)
    cases = [{"image": voxels(seed), "spacing": SPACING} for seed in range(2)]
    assert len(list(predictor.predict_cases(cases))) == 2


def test_a_case_that_fails_ends_all_or_is_its_own_result(predictor: Predictor) -> None:
    cases = ["nowhere.nii.gz", {"image": voxels(), "spacing": SPACING}]
    with pytest.raises(DataError, match="nowhere"):
        list(predictor.predict_cases(cases))
    (_, error), (_, label) = predictor.predict_cases(cases, on_error="return")
    assert isinstance(error, DataError) and label.shape == SHAPE


def test_no_thread_is_left_when_cases_are_not_taken_to_the_end(predictor: Predictor) -> None:
    before = threading.active_count()
    cases = ({"image": voxels(seed), "spacing": SPACING} for seed in range(50))
    results = predictor.predict_cases(cases)
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert threading.active_count() == before


def test_threads_share_a_predictor(predictor: Predictor) -> None:
    expected = [predictor.predict(voxels(seed), spacing=SPACING) for seed in range(3)]
    found: dict[int, Any] = {}

    def work(seed: int) -> None:
        for _ in range(2):
            found[seed] = predictor.predict(voxels(seed), spacing=SPACING)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for seed in range(3):
        assert np.array_equal(found[seed], expected[seed])


def children() -> set[str]:
    """Return the ids of the child processes of this process, on Linux."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("there is no /proc here")
    return {i for t in tasks.iterdir() for i in (t / "children").read_text().split()}


def global_state() -> dict[str, Any]:
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "cudnn": (
            torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32,
        ),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": (torch.random.get_rng_state().tolist(), random.getstate()),
        "numpy random": repr(np.random.get_state()),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "threads alive": threading.active_count(),
        "sitk threads": sitk.ProcessObject.GetGlobalDefaultNumberOfThreads(),
    }  # fmt: skip


def test_nothing_global_is_changed_and_no_process_is_started(model: Path) -> None:
    processes, before = children(), copy.deepcopy(global_state())
    predictor = Predictor.from_folder(model, device="cpu")
    during: list[dict[str, Any]] = []

    def cases() -> Iterator[dict[str, Any]]:
        for seed in range(3):
            yield {"image": voxels(seed), "spacing": SPACING}
            during.append({k: v for k, v in global_state().items() if k != "threads alive"})

    list(predictor.predict_cases(cases()))
    assert global_state() == before
    assert all(state == {k: before[k] for k in state} for state in during)
    assert children() == processes


def resident_bytes() -> int:
    pages = Path("/proc/self/statm")
    if not pages.is_file():
        pytest.skip("there is no /proc here")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_hundred_calls_take_no_more_memory_than_ten(predictor: Predictor) -> None:
    after: dict[int, int] = {}
    for call in range(1, 101):
        predictor.predict(voxels(call), spacing=SPACING, probabilities=True)
        if call in (10, 100):
            gc.collect()
            after[call] = resident_bytes()
    growth = after[100] - after[10]
    assert growth < 0.02 * after[10], f"{growth / 1e6:+.1f} MB on {after[10] / 1e6:.0f} MB"


def test_models_that_are_not_of_single_images_are_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetlike.inference.model_bundle import ModelBundle

    monkeypatch.setattr(ModelBundle, "is_second_stage", property(lambda _: True))
    with pytest.raises(UsageError, match="second stage of a cascade"):
        Predictor.from_folder(model, device="cpu")
    monkeypatch.setattr(ModelBundle, "video", property(lambda _: object()))
    with pytest.raises(UsageError, match="predicts videos"):
        Predictor.from_folder(model, device="cpu")


def test_a_missing_model_is_answered_with_those_that_exist(model: Path) -> None:
    with pytest.raises(DataError, match="holds: nnUNetTrainerV2__nnUNetPlansv2"):
        Predictor.from_folder(model.parent / "nnUNetTrainerV3__nnUNetPlansv2.1")


@pytest.mark.slow
def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, nnunetlike; assert 'torch' not in sys.modules; nnunetlike.Predictor"
    code += "; assert 'torch' in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_of_the_package_is_refused() -> None:
    import nnunetlike

    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = nnunetlike.Predicter


def test_a_case_unlike_the_training_is_predicted_with_a_warning(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    predictor.predict(voxels(), spacing=SPACING)
    assert "unlike" not in caplog.text
    label = predictor.predict(voxels(), spacing=(4.0, 1.0, 1.0))
    assert np.asarray(label).shape == SHAPE
    assert "its spacing along D is 4 mm, 4 times above the largest of the training" in caplog.text


def test_the_folder_of_a_model_may_be_moved(model: Path, tmp_path: Path) -> None:
    shutil.move(model, tmp_path / "elsewhere")
    assert Predictor.from_folder(str(tmp_path / "elsewhere"), device="cpu").bundle.folds
