"""One Python environment per peer, made once and used again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"
STAMP = "installed"


@dataclass(frozen=True, kw_only=True)
class PeerPackages:
    """What is installed for a peer. All of it is pinned, so that figures can be repeated."""

    packages: tuple[str, ...]
    newest_python: tuple[int, int]
    """The last Python for which these have wheels."""


MODERN = ("numpy==2.4.6", "scipy==1.17.1")
PEERS = {
    "v1": PeerPackages(
        packages=(
            "nnunet==1.7.1", "batchgenerators==0.25", "numpy==1.26.4", "scipy==1.11.4",
            "scikit-image==0.22.0", "SimpleITK==2.3.1", "scikit-learn==1.4.2",
        ),
        newest_python=(3, 12),
    ),
    "v2": PeerPackages(
        packages=("nnunetv2==2.8.1", "scikit-image==0.26.0", *MODERN), newest_python=(3, 13)
    ),
    "monai": PeerPackages(packages=("monai==1.6.1", *MODERN), newest_python=(3, 13)),
}  # fmt: skip


def default_folder() -> Path:
    """Return where environments lie unless told otherwise: below the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "nnunetlike" / "benchmarks"


def python_of(peer: str, folder: Path, say: Callable[[str], None] = print) -> Path:
    """Return the interpreter of a peer's environment, which is made if it is not there.

    torch comes first, alone, and from the index that pip is set to; a constraint keeps whatever
    follows from replacing it.

    Args:
        peer: one of `PEERS`.
        folder: holds one environment per peer.
        say: told what takes long.

    Raises:
        RuntimeError: pip failed, or Python is too new for the peer.
    """
    wanted = PEERS[peer]
    home = folder / peer
    python = home / "bin" / "python"
    stamp = home / STAMP
    mark = hashlib.sha256(" ".join((TORCH, *wanted.packages)).encode()).hexdigest()
    if python.exists() and stamp.is_file() and stamp.read_text() == mark:
        return python
    if sys.version_info[:2] > wanted.newest_python:
        newest = ".".join(map(str, wanted.newest_python))
        raise RuntimeError(
            f"{wanted.packages[0]} has no packages for Python newer than {newest}; run the "
            f"benchmarks with one, or name an interpreter that has it: --python {peer}=PYTHON"
        )
    say(f"making an environment with {wanted.packages[0]} in {home} (some minutes, once)")
    _make(home, wanted.packages)
    stamp.write_text(mark)
    return python


def _make(home: Path, packages: Sequence[str]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if subprocess.run([sys.executable, "-m", "venv", home], check=False).returncode:
        # a Python without ensurepip: pip alone can still make an environment
        _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", home / "tool",
             "virtualenv")  # fmt: skip
        code = f"import sys; sys.path.insert(0, {str(home / 'tool')!r}); " + (
            "from virtualenv.run import cli_run; cli_run(sys.argv[1:])"
        )
        _run(sys.executable, "-c", code, home)
    constraint = home / "constraints.txt"
    constraint.write_text(f"{TORCH}\n")
    install = (home / "bin" / "python", "-m", "pip", "install", "--quiet")
    _run(*install, TORCH, constraint=constraint)
    _run(*install, *packages, constraint=constraint)


def _run(*words: object, constraint: Path | None = None) -> None:
    environment = dict(os.environ)
    if constraint is not None:
        environment["PIP_CONSTRAINT"] = str(constraint)
    done = subprocess.run(
        [str(word) for word in words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words[1:4]))} … failed:\n{done.stderr[-2000:]}")
