"""Importing the package is silent, creates nothing and needs no variable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CODE = """
import importlib, json, pkgutil, sys
import nnunetlike
names = [m.name for m in pkgutil.walk_packages(nnunetlike.__path__, "nnunetlike.")]
for name in names:
    importlib.import_module(name)
json.dump(names, open(sys.argv[1], "w"))
"""


def test_importing_every_module_is_silent_and_leaves_nothing(tmp_path: Path) -> None:
    home, here, listing = tmp_path / "home", tmp_path / "here", tmp_path / "names.json"
    for folder in (home, here):
        folder.mkdir()
        folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-I", "-c", CODE, str(listing)],
        env={"HOME": str(home)},
        cwd=here,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert not list(home.iterdir()) and not list(here.iterdir())
    assert len(json.loads(listing.read_text())) > 100
