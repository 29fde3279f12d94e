"""Workers that are killed or raise, disks that are full, runs that are cut off: what is left.

The workers are forked, so what a test replaces is replaced in them too.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from nnunetlike.core import parallel
from nnunetlike.core.errors import ResourceError, WorkerBugError, WorkerError
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.evaluation import evaluator
from nnunetlike.inference import case_prediction, cases, export
from nnunetlike.inference.model_bundle import ModelBundle
from nnunetlike.inference.predict import predict_folder
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.inference.validate import PROGRESS, validate
from nnunetlike.inference.validation_settings import ValidationSettings
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing import pipeline
from nnunetlike.preprocessing.preprocessor import Preprocessor
from nnunetlike.run.evaluate_folder import main as evaluate_folder
from nnunetlike.run.plan_and_preprocess import main as plan_and_preprocess
from nnunetlike.run.run_training import main as train

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked in these tests"),
]
TASK = "Task903_Faults"
CASES = ("a", "b", "c", "d")
HANG_S = 600
Fault = Callable[[], None]


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork workers, two at a time; no test hangs or leaves a process behind."""
    monkeypatch.setenv("nnUNet_start_method", "fork")
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    monkeypatch.setattr(case_prediction, "available_cores", lambda: 2)
    before = {process.pid for process in multiprocessing.active_children()}
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < HANG_S
    assert {process.pid for process in multiprocessing.active_children()} == before


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def out_of_memory() -> None:
    """Meet the limit of `ulimit -v`."""
    resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
    np.empty(2**36, np.uint8)


def bug() -> None:
    raise RuntimeError("a fault of ours")


def once(fault: Fault, marker: Path) -> Fault:
    """Return a fault that happens the first time only, whichever process comes first."""

    def first_time() -> None:
        if not marker.exists():
            marker.touch()
            fault()

    return first_time


def never() -> None:
    return


def write_image(voxels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.zeros((8, 16, 16), np.uint8)
    label[2:6, 4:12, 4:9] = 1
    return (rng.normal(100, 5, label.shape) + 50 * label).astype(np.float32), label


# planning and preprocessing


@pytest.fixture
def raw(home: Path) -> Path:
    """A raw task of four cases."""
    folder = home / "raw" / "nnUNet_raw_data" / TASK
    for seed, case in enumerate(CASES):
        image, label = picture(seed)
        write_image(image, folder / "imagesTr" / f"{case}_0000.nii.gz")
        write_image(label, folder / "labelsTr" / f"{case}.nii.gz")
    content = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "block"},
        "numTraining": len(CASES),
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in CASES
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def preprocess(processes: int = 2) -> int:
    return plan_and_preprocess(["-t", "903", "-pl2d", "None", "-tf", str(processes)])


def stage(home: Path) -> CaseStore:
    return CaseStore(home / "preprocessed" / TASK / "nnUNetData_plans_v2.1_stage0")


def times(store: CaseStore) -> dict[str, int]:
    return {c: (store.folder / f"{c}.npz").stat().st_mtime_ns for c in store.case_ids()}


@pytest.fixture
def break_case(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Fault], None]:
    """Make preprocessing of one case meet a fault."""
    apply, read = Preprocessor.apply, pipeline.load_cropped
    current: list[str] = []

    def set_fault(case_id: str, fault: Fault) -> None:
        def load_and_note(store: CaseStore, asked: str) -> Any:
            current[:] = [asked]
            return read(store, asked)

        def apply_or_fail(self: Preprocessor, *arguments: Any, **settings: Any) -> Any:
            if current == [case_id]:
                fault()
            return apply(self, *arguments, **settings)

        monkeypatch.setattr(pipeline, "load_cropped", load_and_note)
        monkeypatch.setattr(Preprocessor, "apply", apply_or_fail)

    return set_fault


def test_a_killed_preprocessing_worker_costs_nothing(
    raw: Path,
    home: Path,
    break_case: Callable[[str, Fault], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_case("b", once(kill, home / "marker"))
    assert preprocess() == 0
    assert stage(home).case_ids() == list(CASES)
    said = capsys.readouterr().out
    assert "warning: b: its worker (process " in said and "was killed by SIGKILL" in said
    assert "b: done at the second attempt" in said


@pytest.mark.parametrize(
    ("fault", "exit_code", "last_line"),
    [
        (kill, 4, "The usual cause is that memory ran out; use fewer processes or more memory"),
        (out_of_memory, 4, "Use fewer processes or more memory"),
        (bug, 1, "RuntimeError: a fault of ours"),
    ],
)
def test_a_preprocessing_worker_that_fails_twice_is_told_last_and_others_are_done(
    raw: Path,
    home: Path,
    break_case: Callable[[str, Fault], None],
    capsys: pytest.CaptureFixture[str],
    fault: Fault,
    exit_code: int,
    last_line: str,
) -> None:
    break_case("b", fault)
    assert preprocess() == exit_code
    said = capsys.readouterr().err.strip()
    assert said.endswith(last_line)
    assert "error: 1 of 4 cases failed, the others are done:\n  b: tried twice" in said
    assert stage(home).case_ids() == ["a", "c", "d"]
    before = times(stage(home))
    break_case("b", never)
    assert preprocess() == 0
    after = times(stage(home))
    assert after.pop("b") and after == before


def test_planning_twice_does_nothing_the_second_time_and_says_so(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preprocess() == 0
    before = times(stage(home))
    capsys.readouterr()
    assert preprocess() == 0
    assert times(stage(home)) == before
    said = capsys.readouterr().out
    assert "cropping: 4 of 4 cases are there and have not changed since" in said
    name = stage(home).folder.name
    assert f"{name}: 4 of 4 cases are there and have not changed since" in said
    assert "made again" not in said


def test_only_truncated_files_are_made_again_each_named_with_the_reason(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preprocess() == 0
    before = times(stage(home))
    cropped = home / "raw" / "nnUNet_cropped_data" / TASK
    for path in (stage(home).folder / "c.npz", stage(home).folder / "d.pkl", cropped / "a.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    assert preprocess() == 0
    said = capsys.readouterr().out
    name = stage(home).folder.name
    assert "cropping: made again, since a.npz is truncated: a" in said
    assert f"{name}: made again, since c.npz is truncated or damaged: c" in said
    assert f"{name}: made again, since d.pkl is truncated or damaged: d" in said
    after = times(stage(home))
    assert {case for case in CASES if after[case] != before[case]} == {"c", "d"}


def test_changed_plans_make_all_cases_again(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preprocess(0) == 0
    for case in CASES[:3]:  # now the median spacing differs
        image = sitk.ReadImage(str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
        label = sitk.ReadImage(str(raw / "labelsTr" / f"{case}.nii.gz"))
        for volume, name in ((image, f"imagesTr/{case}_0000"), (label, f"labelsTr/{case}")):
            volume.SetSpacing((2.0, 2.0, 2.0))
            sitk.WriteImage(volume, str(raw / f"{name}.nii.gz"))
    assert preprocess(0) == 0
    said = capsys.readouterr().out
    assert "cropping: made again, since image or label have changed: a, b, c" in said
    assert "made again, since the plans have changed: a, b, c, d" in said


def test_a_run_that_was_killed_goes_on_where_it_was(
    raw: Path, home: Path, break_case: Callable[[str, Fault], None]
) -> None:
    break_case("c", kill)
    run = multiprocessing.get_context("fork").Process(target=preprocess, args=(0,))
    run.start()
    run.join(HANG_S)
    assert run.exitcode == -signal.SIGKILL
    before = times(stage(home))
    assert set(before) == {"a", "b"}
    break_case("c", never)
    assert preprocess(0) == 0
    after = times(stage(home))
    assert set(after) == set(CASES) and {c: after[c] for c in before} == before


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_run_ends_with_5_and_goes_on(
    raw: Path,
    home: Path,
    break_case: Callable[[str, Fault], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_case("c", interrupt)
    assert preprocess(0) == 5
    assert "run the same command again to go on" in capsys.readouterr().err
    assert stage(home).case_ids() == ["a", "b"]


@pytest.mark.slow
def test_sigterm_ends_command_and_workers_with_5(raw: Path, home: Path) -> None:
    code = (
        "import sys, time, os, pathlib\n"
        "from nnunetlike.preprocessing.preprocessor import Preprocessor\n"
        "def wait(*_, **__):\n"
        "    pathlib.Path(sys.argv[1], f'at_work_{os.getpid()}').touch()\n"
        "    time.sleep(600)\n"
        "Preprocessor.apply = wait\n"
        "from nnunetlike.core import parallel; parallel.available_cores = lambda: 2\n"
        "from nnunetlike.experiment_planning import disk_need\n"
        "disk_need._share = lambda *_: 1.0\n"
        "from nnunetlike.run.plan_and_preprocess import main\n"
        "sys.exit(main(['-t', '903', '-pl2d', 'None', '-tf', '2']))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(home)], stderr=subprocess.PIPE)
    end = time.monotonic() + HANG_S
    while len(notes := list(home.glob("at_work_*"))) < 2:
        assert time.monotonic() < end and run.poll() is None
        time.sleep(0.05)
    run.terminate()
    _, said = run.communicate(timeout=30)
    assert run.returncode == 5
    assert said.decode().strip().endswith("run the same command again to go on")
    assert not any(Path(f"/proc/{note.name.rpartition('_')[2]}").exists() for note in notes)


# a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 64 KiB."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
        capture_output=True, check=False, timeout=30,
    ) if Path("/bin/mount").exists() else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("a small disk cannot be mounted without rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


def test_a_full_disk_in_preprocessing_names_the_file_and_the_room(
    raw: Path,
    home: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = small_disk / "stage0"
    monkeypatch.setattr(Plans, "stage_folder", lambda *_: str(target))
    assert preprocess() == 4
    said = capsys.readouterr().err
    assert f"the disk is full: {target}/" in said and "GiB free)" in said
    assert not list(target.glob(".tmp*"))


def test_a_write_that_finds_the_disk_full_ends_preprocessing_with_4(
    raw: Path,
    home: Path,
    break_case: Callable[[str, Fault], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_space() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(home / "b.npz"))

    break_case("b", no_space)
    assert preprocess() == 4
    assert f"error: b: the disk is full: {home / 'b.npz'} (" in capsys.readouterr().err


# prediction


@dataclass(frozen=True, kw_only=True)
class Untrained(ModelBundle):
    """A bundle whose strategy needs no network."""

    def networks(
        self, device: torch.device, dtype: torch.dtype | None = None, *, compiled: bool = False
    ) -> Iterator[nn.Module]:
        """Yield the network as it is."""
        yield self.network


def guess(network: nn.Module, image: np.ndarray, request: object) -> np.ndarray:
    """Return probabilities of three classes that depend on the image."""
    found = np.stack([image[0] > 0, image[0] <= 0, image[0] > 9])
    return found.astype(np.float32)


@pytest.fixture
def bundle(tmp_path: Path, tiny_plans: Callable[[int], Plans]) -> ModelBundle:
    """A model that needs no training."""
    network = nn.Identity()
    network.classes = 3  # type: ignore[assignment]
    return Untrained(
        folder=tmp_path / "model", plans=tiny_plans(3), stage=0, network=network,
        strategy=guess, checkpoints=(tmp_path / "model" / "fold_0" / "x.model",), weights=({},),
    )  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of four cases."""
    for seed, case in enumerate(CASES):
        write_image(picture(seed)[0], tmp_path / "images" / f"{case}_0000.nii.gz")
    return tmp_path / "images"


def settings(processes: int = 2) -> PredictionSettings:
    return PredictionSettings(
        device=torch.device("cpu"),
        preprocessing_processes=processes,
        export_processes=processes,
    )


def written(output: Path) -> set[str]:
    return {
        path.name.removesuffix(".nii.gz")
        for path in output.glob("*.nii.gz")
        if sitk.ReadImage(str(path)).GetSize() == (16, 16, 8)
    }


@pytest.fixture
def break_export(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Fault], None]:
    """Make the export of one case meet a fault."""
    write = export.write_label

    def set_fault(case_id: str, fault: Fault) -> None:
        def write_or_fail(label: np.ndarray, record: CaseRecord, where: Any) -> None:
            if where.path.name.startswith(case_id):
                fault()
            write(label, record, where)

        monkeypatch.setattr(export, "write_label", write_or_fail)

    return set_fault


@pytest.fixture
def break_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Fault], None]:
    """Make reading of one case meet a fault."""
    prepare = cases.PrepareCase.__call__

    def set_fault(case_id: str, fault: Fault) -> None:
        def prepare_or_fail(self: Any, case: Any) -> Any:
            if case.case_id == case_id:
                fault()
            return prepare(self, case)

        monkeypatch.setattr(cases.PrepareCase, "__call__", prepare_or_fail)

    return set_fault


@pytest.mark.parametrize("where", ["break_export", "break_reading"])
def test_a_killed_worker_of_a_prediction_costs_nothing(
    request: pytest.FixtureRequest, bundle: ModelBundle, images: Path, tmp_path: Path, where: str
) -> None:
    request.getfixturevalue(where)("b", once(kill, tmp_path / "marker"))
    assert len(predict_folder(bundle, images, tmp_path / "out", settings())) == 4
    assert (tmp_path / "marker").exists() and written(tmp_path / "out") == set(CASES)


def test_killed_exporters_leave_no_probabilities_in_hand(
    bundle: ModelBundle, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_save_probabilities", lambda *_: kill())
    with pytest.raises(WorkerError, match="4 of 4 cases failed"):
        predict_folder(bundle, images, tmp_path / "out", replace(settings(), save_npz=True))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"prediction_time.txt"}


@pytest.mark.parametrize("where", ["break_export", "break_reading"])
@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (kill, WorkerError, r"1 of 4 cases failed.*\n  b: its worker .* SIGKILL"),
        (bug, WorkerBugError, r"(?s)  b: a fault of the program.*RuntimeError: a fault of ours$"),
    ],
)
def test_a_worker_of_a_prediction_that_fails_twice_is_told_and_others_are_written(
    request: pytest.FixtureRequest,
    bundle: ModelBundle,
    images: Path,
    tmp_path: Path,
    where: str,
    fault: Fault,
    kind: type[Exception],
    text: str,
) -> None:
    request.getfixturevalue(where)("b", fault)
    with pytest.raises(kind, match=text):
        predict_folder(bundle, images, tmp_path / "out", settings())
    assert written(tmp_path / "out") == {"a", "c", "d"}


def test_a_full_disk_ends_a_prediction_and_leaves_no_half_files(
    bundle: ModelBundle, images: Path, small_disk: Path
) -> None:
    (small_disk / "ballast").write_bytes(bytes(2**16 - 2**13))
    with pytest.raises(ResourceError, match=r"the disk is full: .*GiB free") as caught:
        predict_folder(bundle, images, small_disk / "out", settings())
    assert caught.value.exit_code == 4
    assert not list((small_disk / "out").glob("*.nii.gz"))


def test_an_interrupted_prediction_goes_on(
    bundle: ModelBundle,
    images: Path,
    tmp_path: Path,
    break_reading: Callable[[str, Fault], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_reading("c", interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(bundle, images, tmp_path / "out", settings(0))
    assert written(tmp_path / "out") == {"a", "b"}
    break_reading("c", never)
    with caplog.at_level("INFO", "nnunetlike"):
        done = predict_folder(bundle, images, tmp_path / "out", settings(0))
    assert [path.name for path in done] == ["c.nii.gz", "d.nii.gz"]
    assert "2 of 4 cases are done already" in caplog.messages


# validation


@pytest.fixture
def validation(tiny_task: Path, tiny_plans: Callable[[int], Plans]) -> Callable[..., list[str]]:
    """Validate four cases with a network of one weight; returns the cases that were predicted."""
    folder = tiny_task / "preprocessed" / "Task901_Tiny"
    plans = tiny_plans(3)
    store = CaseStore(folder / plans.stage_folder(0))

    def run(weight: float = 1.0, at: str = "", fault: Fault = never) -> list[str]:
        predicted: list[str] = []

        class Watched(CaseStore):
            def load(self, case_id: str, *, unpacked: bool = True) -> Any:
                if case_id == at:
                    fault()
                predicted.append(case_id)
                return super().load(case_id, unpacked=unpacked)

        network = nn.Conv3d(1, 3, 1)
        nn.init.constant_(network.weight, weight)
        nn.init.constant_(network.bias, 0.0)
        network.classes, network.deep_supervision = 3, True  # type: ignore[assignment]
        validate(
            network, plans, 0, Watched(store.folder), [f"c_{i}" for i in range(4)],
            folder / "gt_segmentations", tiny_task / "validation",
            ValidationSettings(device=torch.device("cpu"), mirror=False, processes=2),
            task="T", name="n",
        )  # fmt: skip
        return predicted

    return run


@pytest.fixture
def interrupt_validation(tiny_task: Path) -> Fault:
    """Interrupt as soon as the first two cases are written."""

    def wait_and_interrupt() -> None:
        end = time.monotonic() + HANG_S
        while not all((tiny_task / "validation" / f"c_{i}.nii.gz").exists() for i in (0, 1)):
            assert time.monotonic() < end
            time.sleep(0.01)
        raise KeyboardInterrupt

    return wait_and_interrupt


def test_a_validation_that_was_cut_off_predicts_only_the_missing_cases(
    validation: Callable[..., list[str]], interrupt_validation: Fault, tiny_task: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        validation(at="c_2", fault=interrupt_validation)
    path = tiny_task / "validation" / "c_0.nii.gz"
    path.write_bytes(path.read_bytes()[:-5])
    assert validation() == ["c_0", "c_2", "c_3"]
    assert not (tiny_task / "validation" / PROGRESS).exists()


def test_other_weights_validate_all_cases_again(
    validation: Callable[..., list[str]], interrupt_validation: Fault
) -> None:
    with pytest.raises(KeyboardInterrupt):
        validation(at="c_2", fault=interrupt_validation)
    assert validation(weight=2.0) == ["c_0", "c_1", "c_2", "c_3"]


def test_a_completed_validation_is_done_again_when_asked_for(
    validation: Callable[..., list[str]],
) -> None:
    assert validation() == validation() == ["c_0", "c_1", "c_2", "c_3"]


def test_a_killed_exporter_of_a_validation_costs_nothing(
    validation: Callable[..., list[str]],
    break_export: Callable[[str, Fault], None],
    tmp_path: Path,
) -> None:
    break_export("c_1", once(kill, tmp_path / "marker"))
    assert validation() == ["c_0", "c_1", "c_2", "c_3", "c_1"]


# evaluation


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Options that evaluate four predictions."""
    for seed, case in enumerate(CASES):
        for name in ("predictions", "references"):
            write_image(picture(seed)[1], tmp_path / name / f"{case}.nii.gz")
    return ["-ref", str(tmp_path / "references"), "-pred", str(tmp_path / "predictions"),
            "-l", "1", "-num_processes", "2"]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "exit_code", "text"),
    [(kill, 4, "was killed by SIGKILL"), (bug, 1, "RuntimeError: a fault of ours")],
)
def test_an_evaluation_worker_that_fails_names_its_case(
    folders: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Fault,
    exit_code: int,
    text: str,
) -> None:
    evaluate = evaluator._evaluate_files

    def evaluate_or_fail(pair: tuple[Path, Path], **options: Any) -> Any:
        if pair[0].name.startswith("b"):
            fault()
        return evaluate(pair, **options)

    monkeypatch.setattr(evaluator, "_evaluate_files", evaluate_or_fail)
    assert evaluate_folder(folders) == exit_code
    said = capsys.readouterr().err
    assert "1 of 4 cases failed" in said and "  b: tried twice" in said and text in said


# augmentation


TRAINING = (
    "3d_fullres", "nnUNetTrainerV2", "901", "0", "--epochs=1", "--iterations=4",
    "--val_iterations=1", "--num_workers=1", "--seed=7", "--device=cpu", "--fp32",
    "--disable_validation_inference", "--disable_saving",
)  # fmt: skip


@pytest.fixture
def break_batch(tiny_task: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Make the third batch of training meet a fault."""
    from nnunetlike.training.sources.patches import PatchSource

    batch = PatchSource.batch

    def set_fault(fault: Fault) -> None:
        def batch_or_fail(self: PatchSource, index: int) -> Any:
            if self.augmentation is not None and index == 2:
                fault()
            return batch(self, index)

        monkeypatch.setattr(PatchSource, "batch", batch_or_fail)

    return set_fault


@pytest.mark.slow
def test_a_killed_augmentation_worker_costs_nothing(
    break_batch: Callable[[Fault], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_batch(once(kill, tmp_path / "marker"))
    assert train(list(TRAINING)) == 0
    said = capsys.readouterr().out
    assert "warning: batch 2 (cases c_" in said and "was killed by SIGKILL" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "exit_code", "last_line"),
    [(kill, 4, "use fewer processes or more memory"), (bug, 1, "RuntimeError: a fault of ours")],
)
def test_an_augmentation_worker_that_fails_twice_is_told_with_its_cases(
    break_batch: Callable[[Fault], None],
    capsys: pytest.CaptureFixture[str],
    fault: Fault,
    exit_code: int,
    last_line: str,
) -> None:
    break_batch(fault)
    assert train(list(TRAINING)) == exit_code
    said = capsys.readouterr().err.strip()
    assert "error: batch 2 (cases c_" in said and "tried twice" in said
    assert said.endswith(last_line)


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_a_truncated_case_is_named_when_training_needs_it(
    tiny_task: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    folder = tiny_task / "preprocessed" / "Task901_Tiny" / "nnUNetData_plans_v2.1_stage0"
    paths = [folder / f"c_{i}{suffix}" for i in range(4)]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-40])
    assert train(list(TRAINING)) == 3
    said = capsys.readouterr().err
    assert any(f"{path} cannot be read" in said for path in paths)


# /dev/shm


@pytest.mark.slow
def test_64_kilobytes_of_shared_memory_are_enough(tmp_path: Path) -> None:
    (tmp_path / "large_batches.py").write_text(
        "import numpy as np\n"
        "class Large:\n"
        "    def cases(self, index):\n"
        "        return ['a']\n"
        "    def batch(self, index):\n"
        "        image = np.full((2, 1, 96, 96, 96), index, np.float32)\n"
        "        return {'image': image, 'label': image[:, 0] > 0, 'case_ids': ['a']}\n"
    )
    code = (
        "import shutil, torch, large_batches\n"
        "from nnunetlike.core.parallel import process_map\n"
        "from nnunetlike.training.sources.workers import stream\n"
        "assert shutil.disk_usage('/dev/shm').total <= 65536\n"
        "with stream(large_batches.Large(), workers=2) as batches:\n"
        "    assert [next(batches)['image'].max() for _ in range(6)] == list(range(6))\n"
        "found = process_map(large_batches.Large().batch, [1, 2, 3], processes=2)\n"
        "assert [batch['image'].max() for batch in found] == [1, 2, 3]\n"
    )
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    inside = ["unshare", "--mount", "sh", "-c"]
    try:
        subprocess.run([*inside, mount], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small /dev/shm needs the right to mount")
    done = subprocess.run(
        [*inside, f'{mount} && exec "$0" -c "$1"', sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "nnUNet_start_method": "forkserver"},
        capture_output=True, text=True, check=False, timeout=HANG_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
