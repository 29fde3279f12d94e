"""What the commands that convert videos have in common: options, and what they say at the end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from nnunetlike.core.errors import UsageError
from nnunetlike.core.parallel import default_processes
from nnunetlike.dataset_conversion.video_task import EXCLUDED, ConvertedVideos
from nnunetlike.run.command_line import CommandParser, process_count

NOTES_SHOWN = 10
PLACE = (
    " to a raw task of videos below nnUNet_raw_data_base/nnUNet_raw_data. The input folder is only "
    "read. A raw task of the same name is replaced when the new one is complete."
)


def add_task_options(parser: CommandParser, name: str) -> None:
    """Add the options of all converters of videos.

    Args:
        parser: of the command.
        name: what the task is called if the user does not say.
    """
    add = parser.add_argument
    add("-output_task_id", required=True, type=int, metavar="N", help="number of the raw task: 27")
    add("-name", default=name, help="name of the raw task")
    add("-p", type=process_count, default=default_processes(), help="worker processes, 0: none")


def raw_task_name(number: int, name: str) -> str:
    """Return the name of a raw task's folder.

    Raises:
        UsageError: the name holds what folders of tasks do not.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise UsageError(f"-name {name!r} must consist of letters, digits, _ and -")
    return f"Task{number:03d}_{name}"


def report(found: ConvertedVideos, number: int) -> None:
    """Print what was found, what was left out, and what to type next."""
    facts = [video.facts for video in found.videos]
    labelled = sum(len(fact.labelled_frames) for fact in facts)
    views = Counter(fact.view for fact in facts if fact.view)
    parts = Counter(_part(fact.split) for fact in facts)
    _print_some("note", found.notes)
    for name, reason in sorted(found.excluded.items()):
        print(f"excluded: {name}: {reason}")
    if found.excluded:
        print(f"{len(found.excluded)} excluded, listed in {_excluded_file(found)}")
    print(
        f"{found.folder}: {len(facts)} videos of {len({fact.patient for fact in facts})} patients "
        f"({_counted(parts)}), {labelled} labelled frames of "
        f"{sum(video.frames for video in found.videos)}"
        + (f", views {_counted(views)}" if views else "")
        + f"; supervision: {found.supervision}"
    )
    print(f"next: nnUNet_plan_and_preprocess -t {number} --verify_dataset_integrity")


def _excluded_file(found: ConvertedVideos) -> Path:
    return found.folder / EXCLUDED


def _part(split: str | None) -> str:
    return {"train": "training", "val": "validation", "test": "test"}.get(split or "", "training")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _print_some(kind: str, lines: tuple[str, ...]) -> None:
    for line in lines[:NOTES_SHOWN]:
        print(f"{kind}: {line}")
    if len(lines) > NOTES_SHOWN:
        print(f"{kind}: {len(lines) - NOTES_SHOWN} more like these")
