"""The Python that the how-to pages show runs as it stands there."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.plans.plans import Plans

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "how-to").glob("*.md"))


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))


PREDICTOR_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "use-in-python.md"
ALONE = [p for p in PAGES if python_of(p) and p != PREDICTOR_PAGE]


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path) -> None:
    words = [sys.executable, "-c", python_of(page)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_python_of_the_page_on_the_predictor_runs_with_a_model(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    code = python_of(PREDICTOR_PAGE)
    folder = re.search(r'"(results/[^"]+)"', code)
    assert folder is not None
    save_tiny_model(tmp_path / folder[1], tiny_plans(3))
    (tmp_path / "images").mkdir()
    voxels = np.random.default_rng(0).normal(5, 2, (9, 20, 18)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "images/new_0000.nii.gz"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Image", "ndarray"]
    assert (tmp_path / "label.nii.gz").is_file()


@pytest.mark.parametrize("name", ["transfer", "export"])
def test_the_commands_of_pages_on_life_after_training_have_these_options(name: str) -> None:
    for words in commands_of(VIDEO_PAGE.with_name(f"{name}.md")):
        if words[0] == "pip":
            continue
        module = MODULES.get(words[0], words[0].removeprefix("nnUNet_"))
        parser = importlib.import_module(f"nnunetlike.run.{module}").build_parser()
        assert parser.prog == words[0]
        parser.parse_args(words[1:])


VIDEO_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "video.md"
MODULES = {
    "nnUNet_train": "run_training",
    "nnUNet_predict": "predict",
    "nnUNet_plan_and_preprocess": "plan_and_preprocess",
    "nnUNet_evaluate_folder": "evaluate_folder",
}


def commands_of(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("words", commands_of(VIDEO_PAGE), ids=" ".join)
def test_the_commands_of_the_page_on_videos_have_these_options(words: list[str]) -> None:
    """They are run, on other data, by test_video_commands.py."""
    if words[0] == "python":
        done = subprocess.run(
            [sys.executable, VIDEO_PAGE.parents[2] / words[1], "--help"],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert all(word in done.stdout for word in words if word.startswith("-"))
        return
    module = MODULES.get(words[0], words[0].removeprefix("nnUNet_"))
    parser = importlib.import_module(f"nnunetlike.run.{module}").build_parser()
    assert parser.prog == words[0]
    parser.parse_args(words[1:])
