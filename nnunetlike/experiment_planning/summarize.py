"""Fingerprints and plans in words, with what they will cost in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from nnunetlike.core.paths import VIDEO
from nnunetlike.core.resources import may_have_gpu, total_memory
from nnunetlike.core.typing import Spacing
from nnunetlike.experiment_planning.planners.video_memory import video_training_bytes
from nnunetlike.experiment_planning.summarize_videos import describe_videos, video_rows
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.sketch import planned_training_bytes
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans, StagePlan

NETWORK_NAMES = {"unet": "U-Net", "unet_plus_plus": "UNet++"}
_NAMES = {**NETWORK_NAMES, "gdkvm": "GDKVM"}


@dataclass(frozen=True)
class Memory:
    """Memory that training can use on this machine."""

    device: str
    total_bytes: int


def machine_memory() -> Memory:
    """Return the memory of the first GPU, or what this process may use where there is none."""
    if may_have_gpu():
        import torch  # which takes a second and 200 MB

        if torch.cuda.is_available():
            device = torch.cuda.get_device_properties(0)
            return Memory(str(device.name), int(device.total_memory))
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory("RAM, no GPU", total_memory() or physical)


def stage_names(plans: Plans) -> dict[int, str]:
    """Return the configuration that trains on each stage, by stage number."""
    if any(stage.video is not None for stage in plans.stages.values()):
        return dict.fromkeys(plans.stages, VIDEO)
    if any(stage.dimension == 2 for stage in plans.stages.values()):
        return dict.fromkeys(plans.stages, "2d")
    last = max(plans.stages)
    return {number: "3d_fullres" if number == last else "3d_lowres" for number in plans.stages}


def describe_fingerprint(
    fingerprint: Fingerprint, labels_of: Mapping[str, Collection[float]] | None = None
) -> str:
    """Return what was found in a data set: cases, channels, labels, sizes, spacings.

    Args:
        fingerprint: of the data set.
        labels_of: values of each case's label map, if that of videos is to be told.
    """
    if fingerprint.videos is not None:
        return describe_videos(fingerprint, labels_of)
    sizes, spacings = np.vstack(fingerprint.sizes), np.vstack(fingerprint.spacings)
    channels = ", ".join(f"{i} {name}" for i, name in fingerprint.modalities.items())
    kept = float(np.median(list(fingerprint.size_reductions.values())))
    return "\n".join(
        [
            f"  cases           {len(sizes)}",
            f"  channels        {channels}",
            f"  labels          {', '.join(map(str, fingerprint.classes))}, and 0 for background",
            f"  median size     {_times(np.median(sizes, 0))} voxels (D x H x W) after cropping",
            f"  size range      {_times(sizes.min(0))} to {_times(sizes.max(0))}",
            f"  median spacing  {_times(np.median(spacings, 0))} mm",
            f"  spacing range   {_times(spacings.min(0))} to {_times(spacings.max(0))} mm",
            f"  cropping kept   {kept:.0%} of the median case",
            *_orientation_row(fingerprint),
        ]
    )


def _orientation_row(fingerprint: Fingerprint) -> list[str]:
    """Return where the axes of the cases point, if planning looked at it."""
    found = Counter(fingerprint.orientations)
    counts = ", ".join(f"{n} {letters or 'unknown'}" for letters, n in found.most_common())
    text = fingerprint.orientation or f"{counts}: they differ"
    if set(found) == {None}:
        text = "unknown: single slices, or files that do not say"
    return [f"  orientation     {text}"] if found else []


def plans_table(plans: Plans) -> str:
    """Return the decisions of plans: one column per stage, axes transposed as the plans say."""
    names = stage_names(plans)
    stages = list(plans.stages.items())
    rows = [
        ("", [f"{names[i]} (stage {i})" for i, _ in stages]),
        *video_rows([stage for _, stage in stages]),
        (f"spacing, {_unit(plans)}", [_times(_in_space(stage)) for _, stage in stages]),
        ("median size", [_times(stage.median_shape) for _, stage in stages]),
        ("patch size", [_times(stage.patch_size) for _, stage in stages]),
        ("batch size", [str(stage.batch_size) for _, stage in stages]),
        ("poolings per axis", [_times(stage.num_pool_per_axis) for _, stage in stages]),
        ("strides", [_chain(stage.topology.pool_op_kernel_sizes) for _, stage in stages]),
        ("kernels", [_chain(stage.topology.conv_kernel_sizes) for _, stage in stages]),
    ]
    widths = [max(len(row[i]) for _, row in rows) for i in range(len(stages))]
    lines = [
        f"  {title:<18}" + "   ".join(f"{v:<{w}}" for v, w in zip(row, widths, strict=True))
        for title, row in rows
    ]
    schemes = ", ".join(f"{i} {name}" for i, name in plans.normalization_schemes.items())
    lines.append(f"  {'normalisation':<18}{schemes}")
    lines.append(f"  {'axes':<18}{_times(plans.transpose_forward)} (order after transposing)")
    turned = f"{plans.orientation}, to which cases stored otherwise are turned"
    lines.append(
        f"  {'orientation':<18}{turned if plans.orientation else 'none; cases are taken as stored'}"
    )
    return "\n".join(line.rstrip() for line in lines)


def training_needs(plans: Plans, stage: StagePlan) -> dict[str, tuple[int, int]]:
    """Return bytes to train each network on a stage, in single and in mixed precision."""
    if stage.video is not None:
        size, stride = stage.video.network_size, stage.video.memory_stride
        pixels, frames = prod(stage.patch_size), stage.batch_size * stage.video.clip_length
        return {"gdkvm": video_training_bytes(size, stride, pixels, plans.num_classes, frames)}
    task = NetworkTask(
        channels=plans.num_channels,
        classes=plans.num_classes,
        topology=stage.topology,
        base_features=plans.base_features,
        conv_per_stage=plans.conv_per_stage,
    )

    def needed(network: str, bytes_per_value: int) -> int:
        """Return the bytes of a network with activations of a size."""
        patch, batch_size = stage.patch_size, stage.batch_size
        return planned_training_bytes(
            network, task, patch, batch_size, bytes_per_value=bytes_per_value
        )

    return {network: (needed(network, 4), needed(network, 2)) for network in NETWORK_NAMES}


def readable(size_bytes: int) -> str:
    """Return a number of bytes as `12.3 GiB`, or in MiB below one GiB."""
    gibibytes = size_bytes / 2**30
    return f"{gibibytes:.1f} GiB" if gibibytes >= 1 else f"{size_bytes / 2**20:.0f} MiB"


def describe_memory(plans: Plans, memory: Memory) -> str:
    """Return what training will need at each stage, and whether this machine has it."""
    lines = [f"  memory to train, of {readable(memory.total_bytes)} here ({memory.device})"]
    for number, name in stage_names(plans).items():
        for network, (single, mixed) in training_needs(plans, plans.stages[number]).items():
            fits = single <= memory.total_bytes or mixed <= memory.total_bytes
            verdict = "" if fits else "   does not fit"
            lines.append(
                f"    {name:<12}{_NAMES[network]:<8}{readable(single):>9} with --fp32, "
                f"{readable(mixed):>9} mixed{verdict}"
            )
    return "\n".join(lines)


def _unit(plans: Plans) -> str:
    videos = [stage.video for stage in plans.stages.values() if stage.video is not None]
    return videos[0].unit if videos else "mm"


def _in_space(stage: StagePlan) -> Spacing:
    """Return the spacing along the axes of space."""
    return stage.spacing if stage.video is None else stage.spacing[1:]


def _times(values: Iterable[float]) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)


def _chain(sizes: Sequence[tuple[int, ...]]) -> str:
    return " ".join("".join(map(str, size)) for size in sizes) or "none"
