"""What contradicts itself between a video, its label map and its facts. Axes: T time, H, W."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nnunetlike.core.typing import LabelMap
from nnunetlike.data.labels import LabelSet
from nnunetlike.data.video import VideoFacts

SHOWN = 5
"""Most frames that a message lists."""


def video_faults(
    facts: VideoFacts, labels: LabelSet, frames: int, label: LabelMap | None
) -> list[str]:
    """Return what is wrong with a training video, each fault with its frames.

    Values that nobody declared are told by `strange_values`.

    Args:
        facts: of its sidecar.
        labels: what dataset.json declares.
        frames: T of the image.
        label: (T, H, W) on the grid of the image, or None where it lies on another.
    """
    faults = [*_lengths(facts, frames)]
    if label is not None:
        faults += _labelled(facts, label, labels)
    return faults


def strange_values(label: LabelMap, labels: LabelSet) -> list[str]:
    """Return which values of a label map (T, H, W) are not declared, each with its frames."""
    declared = ", ".join(f"{value} {name}" for value, name in sorted(labels.names.items()))
    faults = []
    for value in sorted(set(np.unique(label).tolist()) - set(labels.names)):
        where = np.flatnonzero((label == value).any(axis=(1, 2))).tolist()
        faults.append(
            f"the label map holds {value} in {_frames(where)}, but dataset.json declares {declared}"
        )
    return faults


def _lengths(facts: VideoFacts, frames: int) -> Iterator[str]:
    if frames < 2:
        yield "a video needs two frames or more, and this one has 1"
    frame_of = {"ED": facts.ed, "ES": facts.es}
    for name, frame in frame_of.items():
        if frame is not None and not 0 <= frame < frames:
            yield f"{name} is frame {frame}, but the video has the frames 0 to {frames - 1}"
    beyond = [t for t in facts.labelled_frames if not 0 <= t < frames]
    if beyond:
        yield f"labelled_frames names {_listed(beyond)}, but the frames are 0 to {frames - 1}"
    if not facts.labelled_frames:
        yield "labelled_frames is empty, so that it teaches nothing"


def _labelled(facts: VideoFacts, label: LabelMap, labels: LabelSet) -> Iterator[str]:
    """Yield frames that are labelled in the facts and not in the map, or the other way round."""
    frames = range(len(label))
    said = {t for t in facts.labelled_frames if t in frames}
    ignored = [labels.ignore is not None and bool((f == labels.ignore).all()) for f in label]
    hollow = [t for t in sorted(said) if ignored[t]]
    if hollow:
        yield (
            f"labelled_frames names {_frames(hollow)}, where the label map holds nothing but "
            f"{labels.ignore} ({labels.names[labels.ignore or 0]})"
        )
    surplus = [t for t in frames if t not in said and not ignored[t]]
    if surplus:
        must_be = (
            "dataset.json declares no label 'ignore' for frames without a label"
            if labels.ignore is None
            else f"a frame without a label must hold {labels.ignore} (ignore) everywhere"
        )
        yield f"labelled_frames lacks {_frames(surplus)}, and {must_be}"


def _frames(frames: Sequence[int]) -> str:
    return f"frame{'s' * (len(frames) > 1)} {_listed(frames)}"


def _listed(frames: Sequence[int]) -> str:
    more = len(frames) - SHOWN
    return ", ".join(map(str, frames[:SHOWN])) + (f" and {more} more" if more > 0 else "")
