"""The figures of a GPU, here with a CPU in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

UNET = "nnUNetTrainerV2"


def test_without_a_device_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import gpu
    from benchmarks.__main__ import main

    monkeypatch.setattr(gpu, "_has_cuda", lambda: False)
    assert main(["gpu"]) == 4
    (line,) = capsys.readouterr().out.splitlines()
    assert "torch sees no CUDA device" in line


def test_a_figure_stands_beside_the_ceiling_of_its_type() -> None:
    from benchmarks.gpu import Row, Settings, markdown

    about = {"date": "now", "processor": "P", "cores": 1, "memory_gib": 1, "load": 0}
    rows = [
        Row(what="product fp16, 8²", operations_per_second=8e12, ceiling="fp16"),
        Row(what="product bf16, 8²", operations_per_second=4e12, ceiling="bf16"),
        Row(what="step", seconds=0.5, operations_per_second=2e12, ceiling="fp16", note="n"),
    ]
    text = markdown(about, Settings("cuda"), rows, {"compiled": "too late"})
    assert "| step | 500 ms | 2 TFLOP/s | 25.0% of fp16 |  |  | n |" in text
    assert text.endswith("- compiled: too late\n")


def test_what_comes_too_late_takes_no_other_row_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import subprocess

    from benchmarks import gpu

    def late(*words, timeout, **options):
        output = f"{gpu.MARK}{json.dumps({'what': 'first'})}\n".encode()
        raise subprocess.TimeoutExpired("part", timeout, output)

    monkeypatch.setattr(subprocess, "run", late)
    rows, problem = gpu._part("steps", gpu.tiny("cpu"), tmp_path, 5.0)
    assert [row.what for row in rows] == ["first"]
    assert "not finished within" in problem
    assert gpu._part("steps", gpu.tiny("cpu"), tmp_path, -1.0) == (
        [], f"left out: {gpu.MINUTES:g} minutes are over",
    )  # fmt: skip


@pytest.mark.slow
def test_every_kind_of_part_runs_on_a_cpu(tmp_path: Path) -> None:
    from benchmarks import gpu

    said: list[str] = []
    parts = ("ceilings", "steps", f"epoch {UNET} device", "predict")
    found = tmp_path / "found.json"
    table = tmp_path / "table.md"
    assert gpu.run(gpu.tiny("cpu"), found, table, said.append, parts) == 0, said
    what = [row["what"] for row in json.loads(found.read_text())["rows"]]
    assert [name.split()[0] for name in what] == [
        *["product"] * 4, "copy", *["UNet++"] * 5, "epoch", "U-Net",
    ]  # fmt: skip
    assert f"| epoch of {UNET}, --augment_on device |" in table.read_text()


def test_resampling_on_a_device_is_that_of_the_cpu() -> None:
    import numpy as np
    import torch

    from benchmarks.gpu_candidates import resampled_on
    from benchmarks.stages.synthetic import image
    from nnunetlike.preprocessing.resampling import resample_image

    values = 1000 + image(np.random.default_rng(0), (20, 70, 33))
    found = resampled_on(torch.device("cpu"), values[0], (33, 90, 25))
    expected = resample_image(values, (33, 90, 25))[0]
    assert np.abs(found - expected).max() < 1e-6 * np.ptp(values)


def test_labels_settled_on_a_device_are_those_of_the_cpu() -> None:
    import numpy as np
    import torch

    from benchmarks.gpu_candidates import argmax_on
    from benchmarks.stages.synthetic import fields
    from nnunetlike.preprocessing.label_export import resampled_argmax

    values = fields(np.random.default_rng(0), (20, 30, 25), 5).astype(np.float32)
    found = argmax_on(torch.from_numpy(values), (35, 50, 44))
    assert np.mean(found != resampled_argmax(values, (35, 50, 44))) < 1e-4
