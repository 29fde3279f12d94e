"""Which new values the labels of a task should get, judged by what its files hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nnunetlike.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """New values for old ones, and the names of the new ones."""

    values: Mapping[int, int]
    """Old value to new value, where they differ."""

    names: Mapping[int, str]
    """Label names of the rewritten dataset.json, by new value."""

    certain: bool
    """There is only one sensible reading, so it may be done unasked."""

    def as_option(self) -> str:
        """Return the command-line option that asks for this."""
        return "--map=" + ",".join(f"{old}:{new}" for old, new in self.values.items())


def propose(names: Mapping[int, str], found: Sequence[frozenset[int]]) -> Relabelling | None:
    """Return how labels should be renumbered to be declared and consecutive, or None if they are.

    Certain is: renumbering declared labels, and one foreground value such as 255 in place of the
    one that is declared. All else is a proposal: as many values as are declared keep their order;
    otherwise values nobody declared become further labels, and negative ones background.

    Args:
        names: label names of dataset.json, by value.
        found: the values that occur in each label file.
    """
    declared = sorted(value for value in names if value > 0)
    everywhere = sorted(frozenset().union(*found) - {0})
    unknown = [value for value in everywhere if value not in names]
    new = {old: i for i, old in enumerate(declared, start=1)}
    certain = not unknown
    if unknown and len(everywhere) == len(declared) and min(everywhere) > 0:
        replaced = dict(zip(everywhere, declared, strict=True))
        certain = len(declared) == 1
    elif len(unknown) == len(declared) == 1 and _never_together(unknown + declared, found):
        replaced = {unknown[0]: declared[0]}
    else:
        replaced = {}
    return _build(names, new, replaced, unknown, certain=certain)


def _build(
    names: Mapping[int, str],
    new: Mapping[int, int],
    replaced: Mapping[int, int],
    unknown: Iterable[int],
    *,
    certain: bool,
) -> Relabelling | None:
    values = dict(new) | {old: new[declared] for old, declared in replaced.items()}
    labels = {0: names.get(0, "background")} | {new[old]: names[old] for old in new}
    for old in unknown:
        if old in values:
            continue
        values[old] = 0 if old < 0 else len(labels)
        if old > 0:
            labels[len(labels)] = f"label {old}"
    changed = {old: value for old, value in values.items() if old != value}
    if not changed:
        return None
    return Relabelling(values=changed, names=labels, certain=certain)


def _never_together(values: Sequence[int], found: Iterable[frozenset[int]]) -> bool:
    return not any(set(values) <= here for here in found)


def as_asked(names: Mapping[int, str], wanted: Mapping[int, int]) -> Relabelling:
    """Return the relabelling a user asks for.

    Raises:
        UsageError: the new labels are not numbered 0, 1, 2, … without gaps.
    """
    labels = {wanted.get(value, value): name for value, name in names.items()}
    labels |= {value: name for value, name in names.items() if value in wanted.values()}
    for old, value in wanted.items():
        labels.setdefault(value, f"label {old}")
    if sorted(labels) != list(range(len(labels))):
        raise UsageError(
            f"with this map the labels would be {', '.join(map(str, sorted(labels)))}; they must "
            "be 0, 1, 2, … without gaps"
        )
    return Relabelling(values=wanted, names=dict(sorted(labels.items())), certain=True)


def parse_map(text: str) -> dict[int, int]:
    """Return the relabelling written as `255:1,7:2`.

    Raises:
        UsageError: it is written otherwise, or a value occurs twice.
    """
    pairs = [pair.partition(":") for pair in text.split(",")]
    try:
        wanted = {int(old): int(new) for old, _, new in pairs}
    except ValueError:
        raise UsageError(f"{text!r} is no map of labels; write old:new, as in 255:1,7:2") from None
    if len(wanted) < len(pairs) or min(wanted.values()) < 0:
        raise UsageError(f"{text!r} gives a label twice, or a negative one")
    return wanted
