"""Options that make a training command measure, and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.run.performance import Measurement, describe, measurement_from
from nnunetlike.run.run_training import build_parser

WORDS = ["3d_fullres", "nnUNetTrainerV2", "Task004_Hippocampus", "0"]


def _asked(*options: str) -> Measurement | None:
    return measurement_from(build_parser().parse_args([*WORDS, *options]))


def test_without_the_option_a_command_trains(home: Path) -> None:
    assert _asked() is None
    assert _asked("--other_use", "None") is None


@pytest.mark.parametrize("word", ["fps", "FPS", "Fps"])
def test_a_hundred_steps_are_timed_after_ten_however_it_is_spelt(home: Path, word: str) -> None:
    wanted = _asked("--other-use", word)
    assert wanted is not None
    assert (wanted.use, wanted.steps, wanted.warmup, wanted.dummy_load) == ("fps", 100, 10, False)
    assert wanted.output == Path.cwd()


def test_one_step_is_profiled_after_five(home: Path) -> None:
    wanted = _asked("--other_use=PROF", "--output", str(home / "out"))
    assert wanted is not None
    assert (wanted.use, wanted.steps, wanted.warmup) == ("prof", 1, 5)
    assert wanted.output == home / "out"


def test_another_use_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        _asked("--other_use", "speed")
    assert raised.value.code == 2
    assert "invalid choice: 'speed'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps=3", "--warmup=3", "--dummy_load", "--output=here"])
def test_options_of_a_measurement_mean_nothing_in_a_training(option: str) -> None:
    with pytest.raises(UsageError, match=rf"{option.split('=')[0]} says how to measure"):
        _asked(option)


@pytest.mark.parametrize("option", ["-val", "-c", "--find_lr"])
def test_a_measurement_is_no_other_use_as_well(home: Path, option: str) -> None:
    with pytest.raises(UsageError, match=f"leave out {option}"):
        _asked("--other_use=fps", option)


@pytest.mark.parametrize("option", ["--steps=0", "--warmup=-1"])
def test_numbers_of_steps_have_a_least(home: Path, option: str) -> None:
    with pytest.raises(UsageError, match="or more"):
        _asked("--other_use=fps", option)


def test_the_folder_of_trained_models_is_no_place_for_figures(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="lies in the folder of trained models"):
        _asked("--other_use=fps", "--output", str(home / "results" / "x"))
    (home / "results").mkdir()
    monkeypatch.chdir(home / "results")
    with pytest.raises(UsageError, match="Give another folder with --output"):
        _asked("--other_use=prof")


def test_figures_need_a_folder(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(UsageError, match="file is a file; give a folder"):
        _asked("--other_use=fps", "--output", str(home / "file"))


def _row(samples: float, mean: float, peak: float | None = 2**30) -> dict[str, float | None]:
    return {
        "fps": samples / mean, "samples": samples, "mean_s": mean, "min_s": mean / 2,
        "max_s": mean * 2, "wait_s": mean / 4, "compute_s": mean * 3 / 4, "peak_bytes": peak,
    }  # fmt: skip


def _figures(*rows: dict[str, float | None], share: float | None = None) -> dict[str, object]:
    return {
        "headline": "a trainer", "fps": 4.0, "processes": list(rows), "patch_size": [8, 16, 16],
        "device": "cpu", "device_name": "CPU", "precision": "fp32", "operations_per_second": 2.5e12,
        "operations_per_sample": 5e9, "share_of_peak": share,
    }  # fmt: skip


def test_report_of_one_process_has_every_figure() -> None:
    assert describe(_figures(_row(2, 0.5))).splitlines() == [
        "a trainer",
        "  device           CPU, fp32",
        "  batch            2 patches of 8 x 16 x 16",
        "  step             mean 0.5000 s, min 0.2500 s, max 1.0000 s",
        "  of which         0.1250 s (25.0%) waiting for data, 0.3750 s (75.0%) computing "
        "(compute-bound)",
        "  peak memory      1.0 GiB of this process, its workers apart",
        "  arithmetic       2.5 TFLOP/s (5 GFLOP per patch); the peak of this device (CPU) is not "
        "known",
        "  FPS per process  4.00",
        "  FPS of all       4.00",
    ]


def test_report_of_several_processes_has_a_line_for_each() -> None:
    lines = describe(_figures(_row(2, 0.5), _row(1, 0.4, None), share=0.123)).splitlines()
    assert "  batch            2 + 1 = 3 patches of 8 x 16 x 16" in lines
    assert lines[3].startswith("  process 0        mean 0.5000 s, min 0.2500 s, max 1.0000 s; ")
    assert lines[4].endswith(
        " waiting for data and others, 0.3000 s (75.0%) computing; peak unknown"
    )
    assert "12.3% of the peak of CPU" in lines[5]
    assert lines[6:] == ["  FPS per process  4.00, 2.50", "  FPS of all       4.00"]
