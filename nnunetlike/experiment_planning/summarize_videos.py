"""Fingerprints and plans of videos in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import StagePlan

UNKNOWN = "unknown"


def describe_videos(
    fingerprint: Fingerprint, labels_of: Mapping[str, Collection[float]] | None = None
) -> str:
    """Return what was found in a data set of videos.

    Args:
        fingerprint: of videos.
        labels_of: values of each case's label map; None tells only which classes are declared.
    """
    videos = fingerprint.videos or ()
    sizes = np.vstack(fingerprint.sizes)
    patients = len({video.patient for video in videos})
    views = Counter(video.view or UNKNOWN for video in videos)
    systoles = [abs(v.es - v.ed) + 1 for v in videos if v.ed is not None and v.es is not None]
    labelled = [len(video.labelled_frames) for video in videos]
    channels = ", ".join(f"{i} {name}" for i, name in fingerprint.modalities.items())
    kept = float(np.median(list(fingerprint.size_reductions.values())))
    rows = {
        "videos": f"{len(videos)} of {patients} patient{'s' * (patients != 1)}",
        "views": ", ".join(f"{view} {n}" for view, n in sorted(views.items())),
        "channels": channels,
        "labels": f"{_classes(fingerprint.classes, labels_of)}, and 0 for background",
        "frames": spread(sizes[:, 0]),
        "frames per s": spread(v.fps for v in videos if v.fps is not None),
        "labelled": f"{spread(labelled)} frames; supervision {fingerprint.supervision}",
        "ED to ES": f"{spread(systoles)} frames, known in {len(systoles)} of {len(videos)}",
        "height": f"{spread(sizes[:, 1])} px after cropping",
        "width": f"{spread(sizes[:, 2])} px after cropping",
        "spacing": _spacing(fingerprint),
        "cropping kept": f"{kept:.0%} of the median video",
    }
    return "\n".join(f"  {title:<16}{text}" for title, text in rows.items())


def video_rows(stages: Sequence[StagePlan]) -> list[tuple[str, list[str]]]:
    """Return the rows of a table of plans that videos alone have, one column per stage."""
    videos = [stage.video for stage in stages if stage.video is not None]
    if not videos:
        return []
    grids = [
        tuple(side // video.memory_stride for side in stage.patch_size)
        for stage, video in zip(stages, videos, strict=True)
    ]
    return [
        ("clip length", [f"{video.clip_length} frames" for video in videos]),
        ("frame sampling", [f"{v.frame_sampling} (supervision {v.supervision})" for v in videos]),
        ("network size", [video.network_size for video in videos]),
        (
            "memory",
            [
                f"{a * b} tokens ({a} x {b}, one per {v.memory_stride} x {v.memory_stride} px)"
                for (a, b), v in zip(grids, videos, strict=True)
            ],
        ),
    ]


def spread(values: Iterable[float]) -> str:
    """Return the least, the median and the largest of values, or one if they are all equal."""
    found = list(values)
    if not found:
        return UNKNOWN
    low, median, high = min(found), float(np.median(found)), max(found)
    if low == high:
        return f"{low:.4g}"
    return f"{low:.4g} to {high:.4g}, median {median:.4g}"


def _classes(classes: Sequence[int], labels_of: Mapping[str, Collection[float]] | None) -> str:
    if labels_of is None:
        return ", ".join(map(str, classes))
    counts = {label: sum(label in found for found in labels_of.values()) for label in classes}
    return ", ".join(f"{label} in {n} of {len(labels_of)}" for label, n in counts.items())


def _spacing(fingerprint: Fingerprint) -> str:
    known = [video.spacing_known for video in fingerprint.videos or ()]
    if not all(known):
        return f"unknown in {known.count(False)} of {len(known)}; distances are in pixels (px)"
    spacings = np.vstack(fingerprint.spacings)
    return f"{spread(spacings[:, 1])} mm down, {spread(spacings[:, 2])} mm across"
