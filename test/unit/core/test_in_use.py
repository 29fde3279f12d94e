from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.core.in_use import alone, using

HOLD = """
import sys, time
from pathlib import Path
from nnunetlike.core.in_use import using
with using(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_several_commands_may_use_a_folder(tmp_path: Path) -> None:
    with using(tmp_path), using(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_not_given_alone_until_its_user_ends(tmp_path: Path) -> None:
    with using(tmp_path), pytest.raises(UsageError, match="in use"), alone(tmp_path):
        pass
    with alone(tmp_path) as seen:
        assert seen
    with alone(tmp_path), using(tmp_path):
        pass


def test_a_killed_user_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as p:
        assert p.stdout is not None and p.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="in use"), alone(tmp_path):
            pass
        p.kill()
        p.wait(timeout=60)
    with alone(tmp_path) as seen:
        assert seen
