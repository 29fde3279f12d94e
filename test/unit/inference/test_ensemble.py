from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, ShapeError, UsageError
from nnunetlike.core.serialization import load_json, save_json, save_pickle
from nnunetlike.data.imageio import format_of
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference import ensemble as module
from nnunetlike.inference.ensemble import BYTES_PER_VOXEL, ensemble_folders
from nnunetlike.inference.probabilities import mean_label
from nnunetlike.run.ensemble import main

SIZE = (4, 6, 7)
BOX = ((1, 4), (0, 5), (2, 7))
INSIDE = (3, 5, 5)


def record(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "original_size": SIZE, "original_spacing": (3.0, 1.0, 0.5), "image_files": ("x.nii.gz",),
        "label_file": None, "itk_origin": (1.0, -2.0, 3.5), "itk_spacing": (0.5, 1.0, 3.0),
        "itk_direction": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0), "crop_box": BOX,
        "classes": (), "size_after_cropping": INSIDE,
    }  # fmt: skip
    return dict(CaseRecord(**{**facts, **changes}).to_v1())


def probabilities(seed: int, classes: int = 3, shape: tuple[int, ...] = INSIDE) -> Any:
    found = np.random.default_rng(seed).random((classes, *shape))
    return (found / found.sum(0)).astype(np.float16)


def keep(folder: Path, case: str, softmax: Any, properties: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{case}.npz", softmax=softmax)
    save_pickle(properties or record(), folder / f"{case}.pkl")
    return folder / f"{case}.npz"


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Three models' folders of two cases."""
    folders = [tmp_path / name for name in ("m0", "m1", "m2")]
    for number, folder in enumerate(folders):
        for case in range(2):
            keep(folder, f"c_{case}", probabilities(10 * number + case))
    return folders


def label(path: Path) -> Any:
    return format_of(path).read_label(path)[0]


def test_labels_are_the_arg_max_of_the_half_precision_mean(
    models: list[Path], tmp_path: Path
) -> None:
    ensemble_folders(models, tmp_path / "out", processes=1)
    stack = np.stack([np.load(folder / "c_1.npz")["softmax"] for folder in models])
    wanted = np.zeros(SIZE, np.uint8)
    wanted[tuple(slice(a, b) for a, b in BOX)] = np.mean(stack, 0).argmax(0)
    assert np.array_equal(label(tmp_path / "out" / "c_1.nii.gz"), wanted)


def test_label_maps_lie_on_the_grid_of_the_source(models: list[Path], tmp_path: Path) -> None:
    path = ensemble_folders(models, tmp_path / "out", processes=1)[0]
    _, geometry = format_of(path).read_label(path)
    assert geometry.shape == SIZE and geometry.spacing == (3.0, 1.0, 0.5)
    assert geometry.origin == (1.0, -2.0, 3.5)
    assert tuple(geometry.direction) == (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_missing_cases_are_named_by_folder(models: list[Path], tmp_path: Path) -> None:
    keep(models[0], "c_7", probabilities(1))
    (models[1] / "c_0.pkl").unlink()
    with pytest.raises(DataError, match=r"m1 lacks c_0, c_7; .*m2 lacks c_7.*--save_npz"):
        ensemble_folders(models, tmp_path / "out", processes=1)


def test_folders_without_probabilities_ask_for_them(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "nowhere"]
    folders[0].mkdir()
    with pytest.raises(DataError, match=r"--save_npz"):
        ensemble_folders(folders, tmp_path / "out", processes=1)


def test_one_folder_is_no_ensemble(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two folders"):
        ensemble_folders(models[:1], tmp_path / "out", processes=1)


def test_the_output_is_none_of_the_inputs(models: list[Path]) -> None:
    with pytest.raises(UsageError, match="its own folder"):
        ensemble_folders(models, models[0], processes=1)


def test_models_of_other_classes_are_refused(tmp_path: Path) -> None:
    files = [keep(tmp_path / n, "c", probabilities(1, classes=k)) for n, k in (("a", 2), ("b", 3))]
    with pytest.raises(ShapeError, match="same classes"):
        mean_label(files, BOX, SIZE)


@pytest.mark.parametrize(
    "changes",
    [
        {"original_size": (5, 6, 7)},
        {"crop_box": ((0, 3), (0, 5), (2, 7))},
        {"itk_origin": (1.0, -2.0, 4.5)},
        {"itk_direction": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_predictions_of_another_image_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    keep(tmp_path / "a", "c", probabilities(1))
    keep(tmp_path / "b", "c", probabilities(1), record(**changes))
    with pytest.raises(DataError, match=r"c: .*another image"):
        ensemble_folders([tmp_path / "a", tmp_path / "b"], tmp_path / "out", processes=1)


@pytest.mark.parametrize("length", [0, 40, 200])
def test_truncated_probabilities_are_refused_by_name(tmp_path: Path, length: int) -> None:
    path = keep(tmp_path / "a", "c", probabilities(1))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"c\.npz holds no probabilities"):
        mean_label([path, path], BOX, SIZE)


def test_probabilities_of_the_whole_volume_are_cut_to_the_box(tmp_path: Path) -> None:
    """A later version of v1 stores them so, and its own ensembles come out wrong (bug B5)."""
    box = tuple(slice(a, b) for a, b in BOX)
    whole = probabilities(3, shape=SIZE)
    cut = keep(tmp_path / "a", "c", whole[(slice(None), *box)])
    other = keep(tmp_path / "b", "c", whole)
    assert np.array_equal(mean_label([other, cut], BOX, SIZE)[0], whole.argmax(0)[box])


def test_probabilities_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    files = [keep(tmp_path / "a", "c", probabilities(1, shape=(4, 6, 6)))] * 2
    with pytest.raises(ShapeError, match=r"c\.npz holds \(4, 6, 6\) voxels"):
        mean_label(files, BOX, SIZE)


def test_arrays_in_fortran_order_are_read_right(tmp_path: Path) -> None:
    softmax = probabilities(4)
    path = keep(tmp_path / "a", "c", np.asfortranarray(softmax))
    found, mean = mean_label([path, path], BOX, SIZE, keep=True)
    assert np.array_equal(mean, softmax) and np.array_equal(found, softmax.argmax(0))


def test_a_later_region_overwrites_where_it_exceeds_one_half(tmp_path: Path) -> None:
    softmax = np.zeros((2, 1, 1, 3), np.float16)
    softmax[0, 0, 0], softmax[1, 0, 0] = (0.9, 0.9, 0.5), (0.1, 0.6, 0.5)
    path = keep(tmp_path / "a", "c", softmax)
    found, _ = mean_label([path, path], ((0, 1), (0, 1), (0, 3)), (1, 1, 3), (2, 300))
    assert found.tolist() == [[[2, 300, 0]]]


def peak(models: int, classes: int, folder: Path) -> int:
    """Return the most bytes in use while so many models of so many classes are averaged."""
    volume = (20, 40, 40)
    files = [
        keep(folder / f"{classes}_{m}", "c", probabilities(m, classes, volume))
        for m in range(models)
    ]
    tracemalloc.start()
    mean_label(files, tuple((0, n) for n in volume), volume)  # type: ignore[arg-type]
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_grows_neither_with_models_nor_with_classes(tmp_path: Path) -> None:
    few, many = peak(2, 2, tmp_path / "few"), peak(6, 24, tmp_path / "many")
    assert many < few + 0.5 * 2**20  # 30 KiB a class and model would be 4 MiB more
    assert few < BYTES_PER_VOXEL * 20 * 40 * 40


def test_an_ensemble_can_be_a_member_of_another(models: list[Path], tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    ensemble_folders(models[:2], inner, save_npz=True, processes=1)
    ensemble_folders([inner, models[2]], tmp_path / "out", processes=1)
    assert (tmp_path / "out" / "c_0.nii.gz").is_file()


def test_an_interrupted_ensemble_goes_on_with_what_is_left(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = tmp_path / "out", []
    real = module.write_label

    def failing(found: Any, source: Any, destination: Any) -> None:
        if destination.path.name.startswith("c_1") and "failed" not in done:
            done.append("failed")
            raise KeyboardInterrupt
        done.append(destination.path.name)
        real(found, source, destination)

    monkeypatch.setattr(module, "write_label", failing)
    with pytest.raises(KeyboardInterrupt):
        ensemble_folders(models, out, processes=1)
    ensemble_folders(models, out, processes=1)
    assert sorted(path.name for path in out.iterdir()) == ["c_0.nii.gz", "c_1.nii.gz"]
    assert done.count("c_0.nii.gz") == 1


def test_what_other_files_gave_is_not_kept(models: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ensemble_folders(models, out, processes=1)
    save_json({"made_of": "another"}, out / module.PROGRESS)
    before = label(out / "c_0.nii.gz")
    keep(models[0], "c_0", probabilities(99))
    ensemble_folders(models, out, processes=1)
    assert not np.array_equal(label(out / "c_0.nii.gz"), before)
    assert not (out / module.PROGRESS).exists()


@pytest.mark.slow
def test_worker_processes_write_the_same(models: list[Path], tmp_path: Path) -> None:
    for name, processes in (("one", 1), ("two", 2)):
        ensemble_folders(models, tmp_path / name, save_npz=True, processes=processes)
    for case in ("c_0", "c_1"):
        one, two = (label(tmp_path / name / f"{case}.nii.gz") for name in ("one", "two"))
        assert np.array_equal(one, two)


def test_the_command_averages_and_says_where(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = {"for_which_classes": [1], "min_valid_object_sizes": "None"}
    save_json(rules, tmp_path / "pp.json")
    words = ["-f", *map(str, models), "-o", str(tmp_path / "out"), "-t", "0"]
    assert main([*words, "-pp", str(tmp_path / "pp.json"), "--npz"]) == 0
    assert "2 cases of 3 models" in capsys.readouterr().out
    assert load_json(tmp_path / "out" / "postprocessing.json") == rules
    assert main([*words[:2], "-o", str(tmp_path / "out")]) == 2
