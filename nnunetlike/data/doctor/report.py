"""An examination as text for people and as JSON for programs."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import UsageError
from nnunetlike.core.paths import raw_data
from nnunetlike.core.typing import JSON
from nnunetlike.data.doctor.complaint import Complaint, Kind, Severity
from nnunetlike.data.doctor.examination import Examination

EXAMPLES = 10
"""Most complaints of one kind that the text lists unless all are asked for."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
PRESENT, MISSING = "x", "-"


def report_text(
    examination: Examination, *, most: int | None = EXAMPLES, explain_out: bool = True
) -> str:
    """Return everything found, grouped by kind, the errors first.

    Args:
        examination: what was found.
        most: complaints listed of one kind; None lists all.
        explain_out: say what OUT stands for in the commands.
    """
    command = fix_command(examination)
    lines = [_head(examination), _voxels(examination)]
    for kind, complaints in _by_kind(examination):
        lines += ["", f"{kind.severity}: {kind.title} ({len(complaints)})"]
        lines += [f"  {complaint}" for complaint in complaints[:most]]
        if most is not None and len(complaints) > most:
            lines.append(f"  … and {len(complaints) - most} more; --all lists them")
        lines += [f"  -> {text}" for text in _remedies(complaints, command)]
    lines += _channel_table(examination, most)
    if examination.errors and explain_out:
        lines += ["", f"OUT is a new folder, such as {free_folder(examination.folder)}"]
    return "\n".join(lines)


def report_json(examination: Examination) -> JSON:
    """Return everything found as plain types: counts, complaints, histograms, channel table."""
    command = fix_command(examination)
    return {
        "task": examination.folder.name,
        "training_cases": len(set(examination.spec.training)),
        "test_cases": len(set(examination.spec.test)),
        "counts": _counts(examination),
        "complaints": [
            {
                "severity": complaint.kind.severity,
                "what": complaint.kind.name,
                "case": complaint.case_id,
                "file": complaint.file,
                "found": complaint.found,
                "expected": complaint.expected,
                "remedy": complaint.remedy.format(fix=command),
            }
            for complaint in examination.complaints
        ],
        "labels": {
            examined.case.case_id: _by_name(examined.histogram.voxels)
            for examined in examination.cases
            if examined.histogram is not None
        },
        "channels": {case: list(found) for case, found in examination.layout.channel_table},
    }


def fix_command(examination: Examination) -> str:
    """Return the command that writes a mended copy into OUT."""
    folder = examination.folder
    match = re.match(r"(?:Task|Dataset)(\d+)_", folder.name)
    is_found = match is not None and folder.parent == _home()
    task = str(int(match[1])) if match and is_found else shlex.quote(str(folder))
    return f"nnUNet_verify_dataset -t {task} --fix OUT"


def free_folder(folder: Path) -> Path:
    """Return a folder for a copy that commands find, with a number that no task has there yet.

    It lies among the raw tasks, beside the task if these have no folder; the number is 500 higher
    than the task's if possible.
    """
    home = _home() or folder.parent
    match = re.fullmatch(r"(Task|Dataset)(\d+)_(.+)", folder.name)
    if match is None:
        return home / f"Task501_{folder.name}"
    entries = home.iterdir() if home.is_dir() else ()
    numbers = (re.match(r"(?:Task|Dataset)(\d+)_", entry.name) for entry in entries)
    taken = {int(entry[1]) for entry in numbers if entry}
    number = (int(match[2]) + 500) % 1000
    while number in taken:
        number += 1
    return home / f"{match[1]}{number:03d}_{match[3]}"


def _home() -> Path | None:
    """Return the folder where commands look for raw tasks, if one is set."""
    try:
        return raw_data()
    except UsageError:
        return None


def _head(examination: Examination) -> str:
    spec, counts = examination.spec, _counts(examination)
    said = ", ".join(f"{n} {name}{'s' * (n != 1)}" for name, n in counts.items())
    return (
        f"{examination.folder.name}: {len(set(spec.training))} training and {len(set(spec.test))} "
        f"test cases; {said}"
    )


def _counts(examination: Examination) -> dict[str, int]:
    found = Counter(complaint.kind.severity for complaint in examination.complaints)
    return {severity: found[severity] for severity in SEVERITIES}


def _voxels(examination: Examination) -> str:
    names = examination.spec.labels.names
    listed = (
        f"{value:.7g} {names.get(int(value), '(undeclared)')}: {n}"
        for value, n in sorted(examination.voxels_by_label.items())
    )
    return f"voxels by label: {', '.join(listed) or 'none'}"


def _by_kind(examination: Examination) -> Iterator[tuple[Kind, list[Complaint]]]:
    def order(complaint: Complaint) -> tuple[int, str]:
        """Return what complaints are ordered by: the worst first, then by kind."""
        return SEVERITIES.index(complaint.kind.severity), complaint.kind.name

    ordered = sorted(examination.complaints, key=order)
    for _, group in groupby(ordered, key=order):
        complaints = list(group)
        yield complaints[0].kind, complaints


def _remedies(complaints: list[Complaint], command: str) -> list[str]:
    return list(dict.fromkeys(complaint.remedy.format(fix=command) for complaint in complaints))


def _channel_table(examination: Examination, most: int | None) -> Iterator[str]:
    """Yield the rows of case × channel for cases with missing or surplus channels."""
    table = examination.layout.channel_table
    declared = [f"{channel:04d}" for channel in examination.spec.modalities]
    columns = sorted({*declared, *(channel for _, found in table for channel in found)})
    if not table or len(columns) == 1:  # of one channel the complaints say all
        return
    width = max(len(case) for case, _ in table)
    yield ""
    yield f"channels of these cases ({PRESENT} present, {MISSING} missing, + surplus):"
    yield f"  {'':{width}}  {' '.join(columns)}"
    for case, found in table[:most]:
        marks = (_mark(channel in found, channel in declared) for channel in columns)
        yield f"  {case:{width}}  {' '.join(f'{mark:^4}' for mark in marks)}".rstrip()


def _mark(present: bool, declared: bool) -> str:
    if declared:
        return PRESENT if present else MISSING
    return "+" if present else " "


def _by_name(voxels: Mapping[float, int]) -> dict[str, Any]:
    return {f"{value:.7g}": n for value, n in sorted(voxels.items())}
