"""The Python that the how-to pages show runs as it stands there."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "how-to").glob("*.md"))


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))


@pytest.mark.parametrize("page", [p for p in PAGES if python_of(p)], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path) -> None:
    words = [sys.executable, "-c", python_of(page)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


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
