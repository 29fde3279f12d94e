"""nnUNet_env: what this installation sees, and where each setting comes from."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from nnunetlike import __version__
from nnunetlike.core import environment
from nnunetlike.core.environment import Home, Setting
from nnunetlike.core.errors import UsageError
from nnunetlike.core.resources import (
    available_cores,
    disk_space,
    free_memory,
    in_words,
    shared_memory,
)
from nnunetlike.core.system_errors import existing_parent
from nnunetlike.core.versions import installed_versions
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.training.runtime import choose_device, choose_precision

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "SimpleITK",
    "nibabel",
    "scikit-image",
    "threadpoolctl",
    "numba",
    "connected-components-3d",
    "pandas",
    "matplotlib",
    "tqdm",
)
TUNING = {
    "nnUNet_def_n_proc": "8, at most one per core",
    "nnUNet_n_proc_DA": "12, at most one per core",
    "nnUNet_compile": "a long training in bfloat16 on a CPU is compiled",
    "nnUNet_start_method": "forkserver, or spawn where that is missing",
    "nnunet_use_progress_bar": "a bar per epoch on a terminal only",
}
"""Variables that change how a command works, and what holds when they are not set."""

OTHERS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NUMBA_CACHE_DIR")
"""Variables of libraries that matter here."""


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    return CommandParser(
        prog="nnUNet_env",
        description="Prints the folders with the variables they come from, the machine, the "
        "settings and the versions of the libraries. Send this with a report of a fault.",
        examples=("nnUNet_env",),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(print_environment, build_parser, argv)


def print_environment(args: argparse.Namespace) -> None:
    """Print everything."""
    del args
    print(f"nnunetlike {__version__} in {Path(__file__).parents[1]}")
    print(f"python {platform.python_version()} ({sys.executable}) on {platform.platform()}")
    for title, lines in (
        ("folders", _folders()),
        ("machine", _machine()),
        ("settings", _settings()),
        ("libraries", _libraries()),
    ):
        print(f"\n{title}")
        for line in lines:
            print(f"  {line}")


def _folders() -> Iterator[str]:
    for home in environment.HOMES:
        try:
            setting = home.find()
        except UsageError as error:
            yield f"{home.purpose}: {error}"
            continue
        if setting is None:
            yield f"{home.purpose}: not set; {_spellings(home)}"
        else:
            yield f"{home.purpose}: {setting.home}"
            yield f"  from {setting.variable}={setting.text!r}"
            yield f"  {_state(setting.home)}"
            yield from _ignored(home, setting)


def _spellings(home: Home) -> str:
    v2 = "" if home.v1 == home.v2 else f" (or {home.v2}, as nnU-Net v2 calls it)"
    return f"export {home.v1}=/path/to/folder{v2}"


def _state(folder: Path) -> str:
    """Return whether a folder is there and can be used, and how much room it has."""
    nearest = existing_parent(folder)
    space = disk_space(folder)
    room = f"{in_words(space.free)} of {in_words(space.total)} free"
    may_write = os.access(nearest, os.W_OK | os.X_OK) and nearest.is_dir()
    if nearest != folder:
        made = "is made when needed" if may_write else f"and {nearest} is not writable"
        return f"does not exist, {made}; {room}"
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return "exists, but is NO readable folder"
    return f"exists, {'writable' if may_write else 'NOT writable'}; {room}"


def _ignored(home: Home, used: Setting) -> Iterator[str]:
    if used.variable != home.v2 and home.v2 in os.environ:
        yield f"  {home.v2}={os.environ[home.v2]!r} is not looked at, since {home.v1} is set"


def _machine() -> Iterator[str]:
    yield f"cores: {available_cores()} usable of {os.cpu_count()}"
    memory = free_memory()
    yield f"memory: {'unknown' if memory is None else in_words(memory)} free"
    shared = shared_memory()
    if shared is not None:
        yield f"shared memory: {in_words(shared.free)} of {in_words(shared.total)} free (/dev/shm)"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield f"cuda:{index}: {name}, {in_words(free)} of {in_words(total)} free"
    if not torch.cuda.is_available():
        yield "GPU: none that torch can use"
    device = choose_device(None)
    yield f"training computes on {device} in {choose_precision(device, fp32=False)}"


def _settings() -> Iterator[str]:
    for name, default in TUNING.items():
        yield _value(name, f"not set: {default}")
    for name in OTHERS:
        yield _value(name, "not set")
    known = {*TUNING, *(name for home in environment.HOMES for name in (home.v1, home.v2))}
    for name in sorted(os.environ):
        if name.lower().startswith("nnunet") and name not in known:
            yield f"{name}={os.environ[name]!r} is set, but nothing here reads it"


def _value(name: str, otherwise: str) -> str:
    return f"{name}={os.environ[name]!r}" if name in os.environ else f"{name} {otherwise}"


def _libraries() -> Iterator[str]:
    for library, version in installed_versions(LIBRARIES).items():
        yield f"{library} {version}"


if __name__ == "__main__":
    raise SystemExit(main())
