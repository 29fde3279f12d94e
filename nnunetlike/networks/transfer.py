"""Starting from the weights of another training: what fits is loaded, or adapted, and told.

Parts are compared level by level from the full resolution down, so networks of other depths share
their upper levels. A tensor of another shape is adapted where that has a meaning (image channels,
labels), else it stays as it was drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.networks.pretrained import FIRST, PretrainedWeights

LEAST_SHARE = 0.3
"""Share of a network's parameters that must start from the file; the choice is ours."""

Outcome = Literal["loaded", "adapted", "skipped"]
OUTCOMES: tuple[Outcome, ...] = ("loaded", "adapted", "skipped")


@dataclass(frozen=True)
class TensorTransfer:
    """What became of one tensor of the network."""

    name: str
    outcome: Outcome
    taken: int
    """Parameters that start from the file."""

    reason: str = ""
    """Why it was not loaded as it stands."""

    @property
    def part(self) -> str:
        """`encoder.0`, `decoder.3`, `nodes.0_2`, `heads.1`, ..."""
        return ".".join(self.name.split(".")[:2])


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What became of all tensors of a network."""

    tensors: tuple[TensorTransfer, ...]
    parameters: int
    """Of the network."""

    unused: tuple[str, ...]
    """Tensors of the file that the network has no place for."""

    @property
    def share(self) -> float:
        """Share of the network's parameters that start from the file."""
        return sum(tensor.taken for tensor in self.tensors) / self.parameters

    def counts(self) -> dict[str, int]:
        """Return how many tensors were loaded, adapted and skipped."""
        found = Counter(tensor.outcome for tensor in self.tensors)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    def table(self) -> str:
        """Return a table for people: a line per part, why tensors were not loaded, the sum."""
        parts = list(dict.fromkeys(tensor.part for tensor in self.tensors))
        width = max(map(len, parts), default=4)
        lines = [f"{'part':<{width}}  loaded  adapted  skipped  why"]
        for part in parts:
            members = [tensor for tensor in self.tensors if tensor.part == part]
            found = Counter(tensor.outcome for tensor in members)
            cells = "  ".join(f"{found[o]:>{len(o)}}" for o in OUTCOMES)
            reasons = list(dict.fromkeys(t.reason for t in members if t.reason))
            more = f"; {len(reasons) - 2} more" if len(reasons) > 2 else ""
            lines.append(f"{part:<{width}}  {cells}  {'; '.join(reasons[:2])}{more}".rstrip())
        told = ", ".join(f"{count} {outcome}" for outcome, count in self.counts().items())
        lines.append(
            f"tensors: {told}, {len(self.unused)} of the file not used; {self.share:.1%} of "
            f"{self.parameters} parameters start from the file"
        )
        return "\n".join(lines)


def transfer(
    network: nn.Module,
    weights: PretrainedWeights,
    *,
    channels: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> Transfer:
    """Copy into `network`, in place, what fits of `weights`, and say what became of each tensor.

    An image channel takes the weights of the channel of the same name; one without takes the mean
    over the file's channels, times their number over that of the network's, so that activations
    keep their size. An output takes the weights of the label of the same name, others stay as they
    are; where numbers of outputs agree and no names contradict, all are taken, as nnU-Net v1 does.

    Args:
        network: as it was drawn.
        weights: of another training.
        channels: names of the network's input channels, if known.
        labels: names of its outputs, background first, if known.
    """
    own = network.state_dict()
    rows = []
    with torch.no_grad():
        for name, target in own.items():
            source = weights.tensors.get(name)
            if source is None:
                rows.append(TensorTransfer(name, "skipped", 0, "not in the file"))
            elif name == FIRST and target.shape[2:] == source.shape[2:]:
                rows.append(_take_input(name, target, source, weights.channels, channels))
            elif name.startswith("heads.") and target.shape[1:] == source.shape[1:]:
                rows.append(_take_head(name, target, source, weights.labels, labels))
            else:
                rows.append(_take(name, target, source))
    return Transfer(
        tensors=tuple(rows),
        parameters=sum(tensor.numel() for tensor in own.values()),
        unused=tuple(name for name in weights.tensors if name not in own),
    )


def require_share(result: Transfer, weights: PretrainedWeights, least: float) -> None:
    """Do nothing if enough of a network starts from a file.

    Raises:
        DataError: less than `least` does, or nothing.
    """
    if result.share >= least and result.share > 0:
        return
    reasons = [tensor.reason for tensor in result.tensors if tensor.outcome != "loaded"]
    mend = (
        "Plan this data set with the plans that the weights were trained with "
        "(nnUNet_plan_and_preprocess -overwrite_plans)"
    )
    if result.share > 0:
        mend += f", or go on all the same with --pretrained_share {0.99 * result.share:.2g}"
    raise DataError(
        f"the pretrained weights of {weights.path} fit {result.share:.1%} of this network, less "
        f"than the {least:.0%} that are asked for. {len(reasons)} tensors do not fit as they "
        f"are, for example: {reasons[0]}. {mend}"
    )


def freeze(network: nn.Module, part: str) -> int:
    """Have a part of a network take no gradient, and return the number of its parameters.

    Raises:
        UsageError: the network has no such part.
    """
    found = getattr(network, part, None)
    if not isinstance(found, nn.ModuleList):
        raise UsageError(
            f"--freeze {part}: {type(network).__name__} has no {part} of its own; U-Net and UNet++ "
            "have"
        )
    found.requires_grad_(False)
    return sum(parameter.numel() for parameter in found.parameters())


def _take(name: str, target: Tensor, source: Tensor) -> TensorTransfer:
    if target.shape != source.shape:
        part = name.split(".", 2)[-1]
        return TensorTransfer(
            name, "skipped", 0,
            f"{part} is {_size(target)} here, {_size(source)} in the file",
        )  # fmt: skip
    target.copy_(source)
    return TensorTransfer(name, "loaded", target.numel())


def _take_input(
    name: str,
    target: Tensor,
    source: Tensor,
    theirs: Sequence[str] | None,
    ours: Sequence[str] | None,
) -> TensorTransfer:
    if target.shape[0] != source.shape[0]:
        return _take(name, target, source)
    places = _places(ours, theirs)
    same_count = target.shape[1] == source.shape[1]
    if same_count and (None in places or places == list(range(len(places)))):
        return _take(name, target, source)
    mean = source.mean(dim=1) * (source.shape[1] / target.shape[1])
    for index in range(target.shape[1]):
        place = places[index] if places else None
        target[:, index] = mean if place is None else source[:, place]
    named = [str(place) for place in places if place is not None]
    rest = target.shape[1] - len(named)
    reason = f"{len(named)} image channel(s) by name" if named else ""
    reason += (
        f"{', ' if named and rest else ''}{rest} the mean of {source.shape[1]}" if rest else ""
    )
    return TensorTransfer(name, "adapted", target.numel(), reason)


def _take_head(
    name: str,
    target: Tensor,
    source: Tensor,
    theirs: Sequence[str] | None,
    ours: Sequence[str] | None,
) -> TensorTransfer:
    places = _places(ours, theirs)
    if places:
        places[0] = 0  # background, whatever it is called
    shared = [row for row, place in enumerate(places) if place is not None]
    if target.shape == source.shape and (
        len(shared) < 2 or places == list(range(len(places)))
    ):  # no names contradict
        return _take(name, target, source)
    if not shared:
        return TensorTransfer(
            name, "skipped", 0,
            f"{len(target)} labels here, {len(source)} in the file, whose names are not known",
        )  # fmt: skip
    for row in shared:
        target[row] = source[places[row]]
    taken = ", ".join(ours[row] for row in shared) if ours else ""
    return TensorTransfer(
        name, "adapted", len(shared) * target[0].numel(), f"by label: {taken}; others anew"
    )


def _places(ours: Sequence[str] | None, theirs: Sequence[str] | None) -> list[int | None]:
    """Return where each of our names is among theirs; empty unless names are known and differ."""
    if not ours or not theirs:
        return []
    mine, known = ([name.strip().lower() for name in names] for names in (ours, theirs))
    if len(set(mine)) < len(mine) or len(set(known)) < len(known):
        return []
    return [known.index(name) if name in known else None for name in mine]


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def describe_transfer(weights: PretrainedWeights, result: Transfer) -> Mapping[str, object]:
    """Return what debug.json says of a transfer."""
    return {
        "file": str(weights.path),
        "tensors": result.counts(),
        "share_of_parameters": result.share,
        "adapted": {t.name: t.reason for t in result.tensors if t.outcome == "adapted"},
        "skipped": {t.name: t.reason for t in result.tensors if t.outcome == "skipped"},
    }
