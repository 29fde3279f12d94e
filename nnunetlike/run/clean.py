"""nnUNet_clean: remove what can be made again, and say how much room that gives."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nnunetlike.core import paths
from nnunetlike.core.errors import UsageError
from nnunetlike.core.in_use import alone
from nnunetlike.core.resources import in_words
from nnunetlike.run.command_line import CommandParser, run_command

STAGE_FOLDER = re.compile(r".+_stage\d+")
UNFINISHED = re.compile(r"\.tmp-\d+-.+")
UNFINISHED_AGE_S = 3600
CROPPED_FILES = re.compile(
    r".+\.(npz|pkl|npy)|(dataset|dataset_properties|intensityproperties)\.json"
    r"|gt_segmentations/.+"
)


@dataclass(frozen=True)
class Heap:
    """Files of one kind that can be made again."""

    title: str
    again: str
    """How they are made again."""

    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes they take."""
        return sum(path.lstat().st_size for path in self.files)


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_clean",
        description="Removes files that can be made again, by default the unpacked arrays (ID.npy) "
        "that training makes, and files that killed commands left half-written. Raw data, plans, "
        "splits and results are never touched.",
        examples=("nnUNet_clean -t 4",),
    )
    add = parser.add_argument
    add("-t", "--task", required=True, help="number or name of the task")
    add("--unpacked", action="store_true", help="unpacked arrays; what is meant without options")
    add("--cropped", action="store_true", help="cropped cases; planning makes them again")
    add("--preprocessed", action="store_true", help="preprocessed cases, unpacked ones included; "
        "nnUNet_plan_and_preprocess makes them again. Plans and splits stay")  # fmt: skip
    add("--dry_run", action="store_true", help="only say what would be removed")
    add("-y", "--yes", action="store_true", help="do not ask")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(clean, build_parser, argv)


def clean(args: argparse.Namespace) -> None:
    """Remove what the command line asks for, after asking.

    Raises:
        UsageError: another command works with the task, or there is nobody to ask.
    """
    task = paths.task_name(args.task)
    with ExitStack() as stack:
        home = paths.preprocessed() / task
        seen = not home.is_dir() or stack.enter_context(alone(home))
        heaps = [heap for heap in _heaps(args, task) if heap.files]
        for heap in heaps:
            print(f"{heap.title}: {len(heap.files)} files, {in_words(heap.size)}. {heap.again}")
        total = sum(heap.size for heap in heaps)
        if not heaps or args.dry_run:
            print(f"{task}: {in_words(total)} could be freed; nothing was removed")
            return
        if not seen:
            print(f"warning: this disk has no locks; be sure that nothing works with {task}")
        if not args.yes and not _confirmed(total):
            print("nothing was removed")
            return
        for heap in heaps:
            _remove(heap.files)
        print(f"{task}: {in_words(total)} freed")


def _heaps(args: argparse.Namespace, task: str) -> Iterator[Heap]:
    home = paths.preprocessed() / task
    stages = _stages(home)
    by_default = not (args.cropped or args.preprocessed)
    if args.preprocessed:
        files = _matching(stages, re.compile(r".+\.(npz|npy|b2nd|pkl|json)"))
        again = "nnUNet_plan_and_preprocess makes them again"
        yield Heap(f"preprocessed cases in {home}", again, files)
    elif args.unpacked or by_default:
        files = tuple(path for path in _matching(stages, re.compile(r".+\.npy")) if _packed(path))
        yield Heap(f"unpacked arrays in {home}", "Training makes them again", files)
    if args.cropped:
        cropped = paths.cropped_data() / task
        files = _matching([cropped], CROPPED_FILES)
        yield Heap(f"cropped cases in {cropped}", "Planning makes them again", files)
        yield _unfinished([cropped])
    yield _unfinished([home, *stages])


def _stages(home: Path) -> list[Path]:
    if not home.is_dir():
        return []
    return sorted(p for p in home.iterdir() if p.is_dir() and STAGE_FOLDER.fullmatch(p.name))


def _matching(folders: Iterable[Path], names: re.Pattern[str]) -> tuple[Path, ...]:
    """Return the files below folders whose path within the folder has such a name."""
    return tuple(
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if names.fullmatch(path.relative_to(folder).as_posix())
        and not path.name.startswith(".")
        and path.is_file()
    )


def _packed(path: Path) -> bool:
    """Tell whether an array can be unpacked again."""
    return path.with_suffix(".npz").is_file()


def _unfinished(folders: Iterable[Path]) -> Heap:
    """Return files under temporary names that nobody writes any more."""
    old = time.time() - UNFINISHED_AGE_S
    files = tuple(
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if UNFINISHED.fullmatch(path.name) and path.is_file() and path.stat().st_mtime < old
    )
    return Heap("half-written files of killed commands", "They are of no use", files)


def _confirmed(total: int) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"give -y to remove {in_words(total)} without being asked")
    return input(f"Remove {in_words(total)}? [y/N] ").strip().lower() in ("y", "yes")


def _remove(files: Iterable[Path]) -> None:
    """Delete files, then the folders that are empty now."""
    folders = set()
    for path in files:
        path.unlink()
        folders.add(path.parent)
    for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


if __name__ == "__main__":
    raise SystemExit(main())
