"""Rows as a table, for the terminal and for the documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row

MIB = 2**20
WIDEST = 80
HEAD = (
    "stage", "peer", "theirs", "ours", "ratio", "target", "", "limit", "share of limit",
    "agreement", "peak theirs", "peak ours",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """Return one row as text, in the order of `HEAD`."""
    if row.failed or row.skipped:
        reason = (row.failed or row.skipped).strip().splitlines()[0][:WIDEST]
        why = f"{'FAILED' if row.failed else 'skipped'}: {reason}"
        return (row.stage, row.peer, *[""] * 7, why, "", "")
    return (
        row.stage,
        row.peer,
        seconds(row.theirs_s),
        seconds(row.ours_s),
        times(row.ratio),
        times(row.target),
        {True: "met", False: "MISSED", None: ""}[row.met],
        seconds(row.limit_s),
        "" if row.share_of_limit is None else f"{100 * row.share_of_limit:.3g} %",
        row.agreement,
        mebibytes(row.theirs_peak),
        mebibytes(row.ours_peak) + _allowed(row),
    )


def _allowed(row: Row) -> str:
    """Return what the peak may be, where that is limited."""
    if row.room and row.ours_peak is not None:
        return f" of {mebibytes(row.room)}"
    if row.peak_share and row.share_of_peak is not None:
        return f" ({row.share_of_peak:.2f} of theirs, wanted {row.peak_share:g})"
    return ""


def seconds(value: float | None) -> str:
    """Return a duration with three digits in the unit that suits it."""
    if value is None:
        return ""
    units = ((1, "s"), (1e3, "ms"), (1e6, "µs"))
    factor, unit = next((u for u in units if value * u[0] >= 1), units[-1])
    return f"{value * factor:.3g} {unit}"


def times(value: float | None) -> str:
    """Return a ratio."""
    return "" if value is None else f"{value:.3g}x"


def mebibytes(value: float | None) -> str:
    """Return an amount of memory."""
    return "" if value is None else f"{value / MIB:.0f} MiB"


def table(rows: Sequence[Row]) -> str:
    """Return the rows in columns of even width."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """Return the machine and the rows as Markdown."""
    lines = [*head(about, lambda text: f"- {text}"), ""]
    body = [HEAD, *[("---",) * len(HEAD)], *map(cells, rows)]
    lines += [f"| {' | '.join(line)} |" for line in body]
    stages = {row.stage: f"- {row.stage}: {row.title}" + ("" if not row.note else f"; {row.note}")
              for row in rows}  # fmt: skip
    lines += ["", *stages.values()]
    return "\n".join(lines) + "\n"


def put(path: Path, name: str, text: str) -> None:
    """Write a text into a file: between its lines `<!-- name -->` and `<!-- /name -->`, if any.

    Args:
        path: file, made if it does not exist; without these lines it is replaced.
        name: of the lines.
        text: Markdown.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, opening, rest = whole.partition(first)
    _, closing, after = rest.partition(last)
    kept = f"{before}{first}{text}{last}{after}" if opening and closing else text
    path.write_text(kept, encoding="utf-8")


def head(about: dict[str, Any], mark: Callable[[str], str] = str) -> list[str]:
    """Return lines that say of which machine, date and versions the figures are."""
    limits = about.get("limits", {})
    can = (
        f"one thread copies {limits['bytes_s'] / 1e9:.0f} GB/s (read and written), multiplies "
        f"matrices at {limits['float32'] / 1e9:.0f} GF/s (float32) and "
        f"{limits['bfloat16'] / 1e9:.0f} GF/s (bfloat16)"
        if limits
        else ""
    )
    versions = [
        f"{side}: Python {found['python']}, "
        + ", ".join(f"{name} {is_}" for name, is_ in found["versions"].items() if is_)
        for side, found in about.get("sides", {}).items()
    ]
    lines = [
        f"{about['date']}, {about['processor']}, {about['cores']} cores, "
        f"{about['memory_gib']} GiB, load {about['load']}",
        can,
        *versions,
    ]
    return [mark(line) for line in lines if line]
