"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings

from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    LabelWithinBox,
    export_settled,
    keep,
)
from nnunetlike.inference.streaming import settled
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans, StagePlan
from nnunetlike.plans.topology import Topology
from nnunetlike.run.plan_and_preprocess import main as plan_and_preprocess

settings.register_profile("search", deadline=None)  # machines are busy, and first calls compile
settings.register_profile("repeatable", deadline=None, derandomize=True)  # of tools/check.sh
settings.load_profile("search")

TOOLS = Path(__file__).resolve().parents[1] / "tools"
VIDEO_TASK = "Task950_Ventricles"
TINY_SHAPE = (8, 16, 16)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and real data beside the project; tests skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the golden numbers and real data (../shared) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Numbers made by running nnU-Net v1."""
    return shared / "golden" / "open"


@pytest.fixture
def compiler() -> None:
    """Skip the test where torch.compile cannot work on the CPU."""
    import torch._dynamo

    from nnunetlike.networks.compiling import obstacle

    if not torch._dynamo.is_dynamo_supported():
        pytest.skip("this torch does not compile for this Python")
    reason = obstacle(torch.nn.Identity(), torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for the three folders of nnU-Net; returns the folder that holds them."""
    for variable, name in (
        ("nnUNet_raw_data_base", "raw"),
        ("nnUNet_preprocessed", "preprocessed"),
        ("RESULTS_FOLDER", "results"),
    ):
        monkeypatch.setenv(variable, str(tmp_path / name))
    for variable in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def make_ventricles() -> ModuleType:
    """The tool that makes synthetic videos, as a module."""
    return _module(TOOLS / "make_ventricles.py")


@pytest.fixture(scope="session")
def v2_models() -> ModuleType:
    """The maker of results folders of nnU-Net v2, as a module."""
    return _module(Path(__file__).with_name("v2_models.py"))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def raw_video_task(
    home: Path, make_ventricles: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes a raw task of six synthetic videos of 8 x 48 x 48 and one in imagesTs.

    Takes the keywords of the tool's `make_task`; returns the folder of the task.
    """
    monkeypatch.setenv("nnUNet_def_n_proc", "0")

    def make(videos: int = 6, new_videos: int = 1, **options: object) -> Path:
        folder = home / "raw" / "nnUNet_raw_data" / VIDEO_TASK
        make_ventricles.make_task(folder, videos, new_videos, **options)
        return folder

    return make


@pytest.fixture
def video_task(raw_video_task: Callable[..., Path], home: Path) -> Callable[..., Path]:
    """Writes, plans and preprocesses such a task, `Task950_Ventricles`; returns the home."""

    def make(videos: int = 6, new_videos: int = 1, **options: object) -> Path:
        raw_video_task(videos, new_videos, **options)
        assert plan_and_preprocess(["-t", VIDEO_TASK, "-tl", "0", "-tf", "0"]) == 0
        return home

    return make


@pytest.fixture(scope="session")
def tiny_plans() -> Callable[[int], Plans]:
    """Makes plans of six cases of 8 x 16 x 16 voxels, one channel, two classes, in 2D or 3D."""
    return _plans


@pytest.fixture(scope="session")
def save_tiny_model() -> Callable[..., Path]:
    """Writes an untrained U-Net of plans as the fold `seed` of a model; returns its folder."""
    return _save_model


def _save_model(folder: Path, plans: Plans, seed: int = 0) -> Path:
    import torch  # most tests do without

    from nnunetlike.networks import NetworkTask
    from nnunetlike.networks.model_files import describe_network, save_model_file
    from nnunetlike.networks.unet import UNetSpec
    from nnunetlike.networks.v1_weights import state_dict_to_v1
    from nnunetlike.plans.v1 import plans_to_v1

    task = NetworkTask(
        channels=plans.num_channels,
        classes=plans.num_classes,
        topology=plans.stages[0].topology,
        base_features=plans.base_features,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNetSpec().build(task)
    info = {
        "init": ("plans.pkl", 0, str(folder), "", False, 0, True, False, True),
        "name": "nnUNetTrainerV2",
        "class": "",
        "plans": plans_to_v1(plans),
        "network": describe_network(UNetSpec(), task),
    }
    fold = folder / f"fold_{seed}"
    fold.mkdir(parents=True)
    content = {"epoch": 1, "state_dict": state_dict_to_v1(network)}
    save_model_file(fold / "model_final_checkpoint.model", content, info)
    return folder


def _plans(dimension: int) -> Plans:
    names = [f"c_{i}" for i in range(6)]
    stage = StagePlan(
        spacing=(1.0, 1.0, 1.0),
        original_spacing=(1.0, 1.0, 1.0),
        median_shape=TINY_SHAPE,
        patch_size=TINY_SHAPE[-dimension:],
        batch_size=2,
        dummy_2d_augmentation=False,
        topology=Topology.of([(2,) * dimension] * 2, [(3,) * dimension] * 3),
        num_pool_per_axis=(2,) * dimension,
    )
    return Plans(
        modalities={0: "MR"},
        normalization_schemes={0: "nonCT"},
        use_mask_for_norm={0: False},
        classes=(1, 2),
        base_features=4,
        conv_per_stage=2,
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        data_identifier="nnUNetData_plans_v2.1" + ("_2D" if dimension == 2 else ""),
        stages={0: stage},
        preprocessor_name="PreprocessorFor2D" if dimension == 2 else "GenericPreprocessor",
        fingerprint=Fingerprint(
            sizes=(TINY_SHAPE,) * 6,
            spacings=((1.0, 1.0, 1.0),) * 6,
            classes=(1, 2),
            modalities={0: "MR"},
            intensities=None,
            size_reductions=dict.fromkeys(names, 1.0),
        ),
    )


CLUSTER = """
import sys
import dask
from distributed import LocalCluster

if __name__ == "__main__":
    dask.config.set({"distributed.scheduler.allowed-failures": 1})
    cluster = LocalCluster(
        n_workers=int(sys.argv[1]), threads_per_worker=1, processes=True, memory_limit=0,
        dashboard_address=None, host="127.0.0.1", preload=sys.argv[2:] or None,
    )
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def start_dask(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """Starts a LocalCluster in a process of its own; gives the scheduler's address and the process.

    Its workers find modules in `path` and run the file `preload` first. A case that kills two of
    them is given up. All of them end with the module.
    """
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    script = tmp_path_factory.mktemp("dask") / "cluster.py"
    script.write_text(CLUSTER)
    started: list[subprocess.Popen[str]] = []

    def start(workers: int = 2, path: Path | None = None, preload: Path | None = None) -> object:
        found = os.pathsep.join(filter(None, (str(path or ""), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, str(script), str(workers), *([str(preload)] if preload else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env={
                **os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1",
                "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s",  # a busy machine is no fault
            },
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip(), process

    yield start  # type: ignore[misc]
    for process in started:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.fixture(scope="session")
def export_probabilities() -> Callable[..., None]:
    """Writes probabilities (K, d, h, w) as a prediction, handed over in slabs of two slices."""

    def export(
        values: np.ndarray, record: CaseRecord, settings: ExportSettings, destination: Destination
    ) -> None:
        kept = keep(destination, values.shape)
        slabs = (values[:, begin : begin + 2] for begin in range(0, values.shape[1], 2))
        label = settled(slabs, LabelWithinBox(values.shape, record, settings), kept)
        export_settled(label, kept, record, settings, destination)

    return export
