"""Folders of pictures and label pictures to raw tasks of nnU-Net, without a detour over NIfTI.

Images stay what they are (PNG stays PNG, JPEG stays JPEG, byte for byte); labels are written anew
with the values 0, 1, 2, …. The source folders are only read.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.folders import atomic_folder
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import process_map
from nnunetlike.core.paths import raw_data
from nnunetlike.core.serialization import save_json
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.imageio import format_of, label_ending, split_ending

LOSSLESS = ".png"
"""What pictures become if they come in several formats."""

MEMORY_FACTOR = 10
"""Memory that reading or writing a case takes, per byte of its pixels at 8 bits: they become
single-precision numbers, which are stacked and compared."""

SHOWN = 3
"""Names that a message shows of each kind."""


@dataclass(frozen=True)
class Rule:
    """Values `low` to `high` of a label picture become `label`."""

    low: int
    high: int
    label: int

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Return the rule of `255=1` or `128-255=1`.

        Raises:
            UsageError: it has another form.
        """
        match = re.fullmatch(r"(\d+)(?:-(\d+))?=(\d+)", text)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(
                f"--map {text!r} is no rule; give VALUE=LABEL or FROM-TO=LABEL, such as 255=1 or "
                "128-255=1"
            )
        return cls(int(match[1]), int(match[2] or match[1]), int(match[3]))


@dataclass(frozen=True, kw_only=True)
class PictureTask:
    """What to convert, and how."""

    images: Path
    labels: Path
    name: str
    """Of the raw task, `Task501_Cells` or `Dataset501_Cells`."""

    label_suffix: str = ""
    """What the names of labels have more than those of their images: `_1stHO`."""

    test_images: Path | None = None
    rules: tuple[Rule, ...] = ()
    """Empty: values 0 and one other become 0 and 1, values 0, 1, 2, … stay."""

    label_names: tuple[str, ...] = ()
    """Of the labels 1, 2, …; `label_1` and so on where there are none."""


@dataclass(frozen=True)
class ConvertedPictures:
    """What a conversion wrote."""

    folder: Path
    training: int
    testing: int
    rules: tuple[Rule, ...]
    """How values became labels."""

    ending: str
    channels: int
    left_out: tuple[str, ...]
    """Files of the images' folder that have no label and are no labels."""


@dataclass(frozen=True)
class _Facts:
    """What one case's files hold."""

    channels: int
    values: tuple[int, ...]
    """Of the label, ascending; none for test images."""


def convert_pictures(task: PictureTask, *, processes: int) -> ConvertedPictures:
    """Convert folders of pictures into a raw task, which replaces one of the same name.

    Args:
        task: what to convert.
        processes: most worker processes; 0 or 1 converts in this process.

    Raises:
        DataError: images and labels do not belong together, a picture cannot be read, or label
            values have no rule.
    """
    pairs, left_out = _pairs(task)
    tests = _pictures(task.test_images) if task.test_images is not None else []
    files = [*pairs, *((image, None) for image in tests)]
    facts = process_map(
        _facts, files, processes=processes, name=_name, title="reading", cost=_memory
    )
    channels = max(found.channels for found in facts)
    rules = task.rules or _proposed(sorted({v for found in facts for v in found.values}))
    _check_rules(rules, zip(pairs, facts, strict=False))
    ending = _ending([image for image, _ in files], facts)
    target = raw_data() / task.name
    with atomic_folder(target) as folder:
        for name in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / name).mkdir()
        write = partial(_write, folder=folder, ending=ending, channels=channels, rules=rules)
        process_map(write, files, processes=processes, name=_name, title="converting", cost=_memory)
        content = _description(task, pairs, tests, rules, ending, channels)
        save_json(content, folder / "dataset.json")
    return ConvertedPictures(
        target, len(pairs), len(tests), rules, ending, channels, tuple(p.name for p in left_out)
    )


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and split_ending(path.name)[1]
        and format_of(path).multichannel
    ]


def _pairs(task: PictureTask) -> tuple[list[tuple[Path, Path | None]], list[Path]]:
    """Return each image with its label, and the files left out where both lie in one folder."""
    images = {_stem(path): path for path in _pictures(task.images)}
    labels = {_stem(path): path for path in _pictures(task.labels)}
    pairs: list[tuple[Path, Path | None]] = [
        (path, labels[stem + task.label_suffix])
        for stem, path in images.items()
        if stem + task.label_suffix in labels and path != labels[stem + task.label_suffix]
    ]
    used = {path for pair in pairs for path in pair}
    left_out = [path for path in images.values() if path not in used]
    if task.images.resolve() == task.labels.resolve() and pairs:
        return pairs, left_out
    without_image = [path for path in labels.values() if path not in used]
    if left_out or without_image or not pairs:
        raise DataError(_do_not_match(task, left_out, without_image))
    return pairs, []


def _do_not_match(task: PictureTask, images: Sequence[Path], labels: Sequence[Path]) -> str:
    text = (
        f"images and labels do not belong together: the label of NAME must be called NAME"
        f"{task.label_suffix}. "
    )
    for what, folder, paths in (
        ("image(s) without label", task.images, images),
        ("label(s) without image", task.labels, labels),
    ):
        names = ", ".join(path.name for path in paths[:SHOWN]) or "none"
        text += f"{len(paths)} {what} in {folder}: {names}. "
    if suffixes := _common_suffixes(images, labels):
        return f"{text}Perhaps --label_suffix {' or --label_suffix '.join(suffixes)}"
    return f"{text}Rename them, or give --label_suffix; images without label belong to -ts"


def _common_suffixes(images: Sequence[Path], labels: Sequence[Path]) -> list[str]:
    """Return what labels' names have more than those of images, such as `_mask`."""
    stems = {_stem(path) for path in images}
    names = [_stem(path) for path in labels]
    found = Counter(n[len(s) :] for n in names for s in stems if n != s and n.startswith(s))
    likely = {suffix: n for suffix, n in found.items() if n > 1 and not suffix[0].isalnum()}
    return sorted(likely, key=lambda suffix: (-likely[suffix], suffix))[:SHOWN]


def _facts(pair: tuple[Path, Path | None]) -> _Facts:
    """Read the files of a case.

    Raises:
        DataError: one cannot be read, or they differ in size.
    """
    image, geometry = format_of(pair[0]).read([pair[0]])
    if pair[1] is None:
        return _Facts(len(image), ())
    label, grid = format_of(pair[1]).read_label(pair[1])
    if grid.shape != geometry.shape:
        raise DataError(
            f"{pair[1]} has {grid.shape} pixels (D, H, W) but {pair[0]} {geometry.shape}"
        )
    return _Facts(len(image), tuple(int(value) for value in np.unique(label)))


def _proposed(values: Sequence[int]) -> tuple[Rule, ...]:
    """Return the rules for label values that need none given: 0 and one other, or 0, 1, 2, ….

    Raises:
        DataError: the values are others.
    """
    if values == list(range(len(values))):
        return tuple(Rule(value, value, value) for value in values)
    if len(values) == 2 and values[0] == 0:
        return (Rule(0, 0, 0), Rule(values[1], values[1], 1))
    shown = ", ".join(map(str, values[:12])) + (" …" if len(values) > 12 else "")
    if len(values) > 12:
        hint = "It looks like a smoothed mask: --map 0-127=0 128-255=1"
    else:
        hint = f"Perhaps --map {' '.join(f'{v}={i}' for i, v in enumerate(values))}"
    raise DataError(f"the labels hold {len(values)} values: {shown}. Say what each means. {hint}")


def _check_rules(
    rules: Sequence[Rule], cases: Iterable[tuple[tuple[Path, Path | None], _Facts]]
) -> None:
    """Refuse label values without a rule, and labels that leave a gap."""
    without = [
        f"{pair[1].name} holds {value}"
        for pair, found in cases
        if pair[1] is not None
        for value in found.values
        if not any(rule.low <= value <= rule.high for rule in rules)
    ]
    if without:
        more = f" and {len(without) - SHOWN} more" if len(without) > SHOWN else ""
        raise DataError(f"no --map rule covers: {', '.join(without[:SHOWN])}{more}")
    labels = sorted({0, *(rule.label for rule in rules)})
    if labels != list(range(len(labels))):
        raise UsageError(f"--map gives the labels {labels}; they must be 0, 1, 2, … without a gap")


def _ending(images: Sequence[Path], facts: Sequence[_Facts]) -> str:
    """Return the ending that all images have; PNG where they differ and must be made alike."""
    endings = {split_ending(path.name)[1].lower() for path in images}
    is_uniform = len(endings) == 1 and len({found.channels for found in facts}) == 1
    return endings.pop() if is_uniform else LOSSLESS


def _write(
    pair: tuple[Path, Path | None],
    *,
    folder: Path,
    ending: str,
    channels: int,
    rules: Sequence[Rule],
) -> None:
    """Write the image, and the label if there is one, of a case."""
    source, label = pair
    home = folder / ("imagesTs" if label is None else "imagesTr")
    target = home / f"{_stem(source)}_0000{ending}"
    is_as_wanted = split_ending(source.name)[1].lower() == ending
    if is_as_wanted and len(format_of(source).read([source])[0]) == channels:
        shutil.copyfile(source, target)
    else:
        _re_encode(source, target, channels)
    if label is not None:
        voxels, geometry = format_of(label).read_label(label)
        path = folder / "labelsTr" / f"{_stem(source)}{label_ending(ending)}"
        format_of(path).write_label(relabelled(voxels, rules), geometry, path)


def relabelled(values: LabelMap, rules: Sequence[Rule]) -> LabelMap:
    """Return a label map by the first rule that covers each value; 0 where none does."""
    label = np.zeros(values.shape, np.uint16)
    for rule in reversed(rules):
        label[(values >= rule.low) & (values <= rule.high)] = rule.label
    return label.astype(np.uint8 if label.max() < 256 else np.uint16)


def _re_encode(source: Path, target: Path, channels: int) -> None:
    """Write a picture with so many channels in the target's format.

    Raises:
        DataError: it has more bits than both formats hold.
    """
    image, _ = format_of(source).read([source])
    if image.max() > 255 or image.shape[0] not in (1, channels) or channels not in (1, 3):
        raise DataError(
            f"{source} must be converted to {channels} channels of {target.suffix}, but holds "
            f"{len(image)} with values up to {image.max():g}. Save all images in one form"
        )
    pixels = np.broadcast_to(image[:, 0], (channels, *image.shape[2:])).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)).squeeze())
    picture.save(target)


def _description(
    task: PictureTask,
    pairs: Sequence[tuple[Path, Path | None]],
    tests: Sequence[Path],
    rules: Sequence[Rule],
    ending: str,
    channels: int,
) -> Mapping[str, object]:
    """Return the content of dataset.json, in v1's dialect with v2's file_ending."""
    highest = max(rule.label for rule in rules)
    names = ("background", *task.label_names[:highest])
    names += tuple(f"label_{value}" for value in range(len(names), highest + 1))
    modalities = {3: ("R", "G", "B"), 1: ("grey",)}.get(channels, tuple(map(str, range(channels))))
    as_label = label_ending(ending)
    return {
        "name": task.name.partition("_")[2],
        "description": "converted from pictures",
        "tensorImageSize": "3D",
        "modality": {str(i): name for i, name in enumerate(modalities)},
        "labels": {str(i): name for i, name in enumerate(names)},
        "file_ending": ending,
        "numTraining": len(pairs),
        "numTest": len(tests),
        "training": [
            {
                "image": f"./imagesTr/{_stem(image)}{ending}",
                "label": f"./labelsTr/{_stem(image)}{as_label}",
            }
            for image, _ in pairs
        ],
        "test": [f"./imagesTs/{_stem(image)}{ending}" for image in tests],
    }


def _stem(path: Path) -> str:
    return split_ending(path.name)[0]


def _memory(pair: tuple[Path, Path | None]) -> float:
    return MEMORY_FACTOR * sum(unpacked_size(path) for path in pair if path is not None)


def _name(pair: tuple[Path, Path | None]) -> str:
    return pair[0].name
