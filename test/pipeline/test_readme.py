"""The README's walk-through, run as it stands there but for its size."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHRUNK = {
    "make_phantom.py demo/Task09_Phantom": " --cases 6 --new_cases 1 --size 32",
    "--epochs 8 --iterations 30 --base_num_features 8": " --epochs 1 --iterations 2"
    " --val_iterations 1 --base_num_features 4",
}


def walk_through() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## From raw files to Dice")[2]
    script = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)[0]
    for words, instead in SHRUNK.items():
        assert words in script
        script = script.replace(words, (words if "make" in words else "") + instead)
    return str(script)


@pytest.mark.slow
def test_the_walk_through_ends_with_dice_and_pictures(tmp_path: Path) -> None:
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", walk_through()],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    fold = next((tmp_path / "demo/results/nnUNet/3d_fullres").glob("*/*/fold_0"))
    mean = json.loads((fold / "validation_raw/summary.json").read_text())["results"]["mean"]
    assert 0 <= mean["1"]["Dice"] <= 1
    assert list((tmp_path / "demo/predictions").glob("*.nii.gz"))
    assert list((tmp_path / "demo/pictures").glob("**/*.png"))


def test_every_command_the_readme_names_is_installed() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"nnUNet_[A-Za-z_]*[A-Za-z]\b(?= -|`| )", readme))
    commands = set(re.findall(r'"(nnUNet_\w+)":', (ROOT / "setup.py").read_text()))
    assert named & commands == commands, commands - named
