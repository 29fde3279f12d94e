"""dataset.json, in the dialects of nnU-Net v1 and v2: what a task consists of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_json
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.imageio import (
    DEFAULT_ENDING,
    ending_in,
    format_of,
    known_endings,
    label_ending,
    split_ending,
)
from nnunetlike.data.labels import LabelSet
from nnunetlike.data.video import VideoDeclaration

SUFFIX = DEFAULT_ENDING
CHANNELS = ("modality", "channel_names")
"""What v1 and v2 call the entry that names the channels."""

CHANNEL_NUMBER = r"_\d{4}$"
IGNORE = "ignore"
"""Name of the label of pixels that have none."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Content of a dataset.json; entries that are not needed may be absent or misspelt."""

    name: str
    modalities: Mapping[int, str]
    labels: LabelSet
    training: tuple[str, ...]
    """Case identifiers in the order of the file, or sorted where it lists none (v2)."""

    test: tuple[str, ...]
    file_ending: str = DEFAULT_ENDING
    """Ending of the image files."""

    video: VideoDeclaration | None = None
    """Of tasks whose cases are videos."""

    @property
    def label_ending(self) -> str:
        """Ending of the label files: that of the images, but PNG where those are JPEG."""
        return label_ending(self.file_ending)

    @classmethod
    def load(cls, path: Path) -> DatasetSpec:
        """Return the content of a dataset.json.

        Raises:
            DataError: the file is missing, not JSON, lacks the channels, `labels` or `training`,
                or asks for what is not supported (regions, an ignored label of what is no video,
                files anywhere).
        """
        content = load_json(path)
        if not isinstance(content, Mapping):
            raise DataError(f'{path} must hold an object, {{"modality": …}}, not a list')
        _require_entries(content, path)
        modality = content.get("modality", content.get("channel_names"))
        video = content.get("video")
        declared = None if video is None else VideoDeclaration.from_plain(video, path)
        labels = content["labels"]
        return cls(
            name=str(content.get("name", path.parent.name)),
            modalities=_channels(modality, path),
            labels=_labels(labels, path) if declared is None else _video_labels(labels, path),
            training=_training(content, path),
            test=_test(content, path),
            file_ending=_ending(content, path),
            video=declared,
        )

    def training_case(self, folder: Path, case_id: str) -> CaseFiles:
        """Return the files of a training case below a raw task folder, of a video with its facts.

        Raises:
            DataError: the facts of a video are missing or wrong.
        """
        return CaseFiles(
            case_id=case_id,
            images=self.image_files(folder / "imagesTr", case_id),
            label=folder / "labelsTr" / f"{case_id}{self.label_ending}",
            channels=len(self.modalities),
            video=None if self.video is None else self.video.facts(folder, case_id),
            labels=None if self.video is None else self.labels,
        )

    def image_files(self, folder: Path, case_id: str) -> tuple[Path, ...]:
        """Return a case's image paths in `folder`: one per channel, or one colour picture."""
        paths = tuple(folder / f"{case_id}_{c:04d}{self.file_ending}" for c in self.modalities)
        is_colour = (
            format_of(paths[0]).multichannel
            and paths[0].is_file()
            and not any(path.is_file() for path in paths[1:])
        )
        return paths[:1] if is_colour else paths


def _require_entries(content: Mapping[str, Any], path: Path) -> None:
    if "dataset" in content:
        raise DataError(
            f"{path}: 'dataset', which lists files outside imagesTr and labelsTr, is not supported "
            "yet. Copy or link the files into these folders and remove the entry"
        )
    missing = [] if any(key in content for key in CHANNELS) else ["modality"]
    missing += [] if "labels" in content else ["labels"]
    lists_cases = "training" in content or "channel_names" in content
    if not lists_cases and not (path.parent / "imagesTr").is_dir():
        missing.append("training")
    if missing:
        raise DataError(
            f"{path} lacks the entry {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, content)) or 'none'}"
        )


def _channels(content: Any, path: Path) -> dict[int, str]:
    """Return the channels' names by number, in the order of the file."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping) or not content:
        raise DataError(f'{path}: the channels must be given as {{"0": "CT"}}; found {content!r}')
    numbers = [_number(key) for key in content]
    if any(number is None for number in numbers):
        raise DataError(
            f'{path}: the keys of the channels must be numbers, as in {{"0": "CT"}}; found '
            f"{', '.join(map(str, content))}"
        )
    return {int(key): str(name) for key, name in content.items()}


def _labels(content: Any, path: Path) -> LabelSet:
    """Return labels given as value to name (v1) or name to value (v2)."""
    if isinstance(content, Mapping) and all(_number(key) is not None for key in content):
        return LabelSet({int(value): str(name) for value, name in content.items()})
    if not isinstance(content, Mapping):
        raise DataError(f'{path}: labels must be given as {{"0": "background"}}; found {content!r}')
    if any(isinstance(value, (list, tuple)) for value in content.values()):
        regions = [name for name, value in content.items() if isinstance(value, (list, tuple))]
        raise DataError(
            f"{path}: regions ({', '.join(regions)}) are not supported yet. Give every label one "
            "value, which trains on the labels themselves"
        )
    if IGNORE in content:
        raise DataError(
            f"{path}: a label that is ignored is not supported yet. Remove 'ignore' from the "
            "labels, and its voxels from the label maps"
        )
    wrong = [str(name) for name, value in content.items() if _number(value) is None]
    if wrong:
        raise DataError(
            f'{path}: labels must be numbers to names, {{"0": "background"}}, or names to numbers, '
            f'{{"background": 0}}; not so: {", ".join(wrong)}'
        )
    return LabelSet({int(value): str(name) for name, value in content.items()})


def _video_labels(content: Any, path: Path) -> LabelSet:
    """Return the labels of a task of videos, numbered without gaps; the highest may be ignored."""
    is_v2 = isinstance(content, Mapping) and IGNORE in content
    ignored = _number(content[IGNORE]) if is_v2 else None
    plain = {k: v for k, v in content.items() if k != IGNORE} if is_v2 else content
    names = dict(_labels(plain, path).names)
    if is_v2:
        if ignored is None:
            raise DataError(
                f"{path}: the label 'ignore' must be one number; found {content[IGNORE]!r}"
            )
        names[ignored] = names.get(ignored, IGNORE)
    else:
        ignored = next((value for value, name in names.items() if name == IGNORE), None)
    classes = sorted(value for value, name in names.items() if name != IGNORE)
    if classes != list(range(len(classes))) or ignored not in (None, len(classes)):
        raise DataError(
            f"{path}: the labels of videos must be numbered 0, 1, 2, … without gaps, with 'ignore' "
            f"the highest; found {', '.join(f'{v} {n}' for v, n in sorted(names.items()))}"
            + (f", of which {ignored} is to be ignored" if ignored in classes else "")
        )
    return LabelSet(names, ignore=ignored)


def _number(text: Any) -> int | None:
    """Return a whole number given as such or as text, else None."""
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        return None
    return int(text) if re.fullmatch(r"-?\d+", str(text).strip()) else None


def _training(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return the listed cases, or those found in imagesTr where none are listed."""
    if "training" not in content:
        return _found(path.parent / "imagesTr", _ending(content, path))
    entries = content["training"]
    if not isinstance(entries, list):
        raise DataError(f"{path}: 'training' must be a list of cases; found {entries!r}")
    return tuple(_case_id(entry, path) for entry in entries)


def _test(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    if "test" not in content and "training" not in content:
        return _found(path.parent / "imagesTs", _ending(content, path))
    entries = content.get("test") or []
    return tuple(_case_id(entry, path) for entry in entries)


def _found(folder: Path, ending: str) -> tuple[str, ...]:
    """Return the identifiers of the image files in a folder, which may be missing."""
    if not folder.is_dir():
        return ()
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    stems = [name[: -len(ending)] for name in names if name.endswith(ending)]
    return tuple(sorted({re.sub(CHANNEL_NUMBER, "", stem) for stem in stems}))


def _ending(content: Mapping[str, Any], path: Path) -> str:
    """Return the ending of image files: as stated, as the first case has it, or as found."""
    if stated := content.get("file_ending"):
        ending = str(stated) if str(stated).startswith(".") else f".{stated}"
        if ending.lower() not in known_endings():
            raise DataError(
                f"{path}: file_ending {ending!r} is not supported; known are "
                f"{', '.join(known_endings())}"
            )
        return ending
    entries = content.get("training")
    if isinstance(entries, list) and entries:
        return split_ending(_image(entries[0], path))[1] or DEFAULT_ENDING
    folder = path.parent / "imagesTr"
    return ending_in(folder) if folder.is_dir() else DEFAULT_ENDING


def _case_id(entry: Any, path: Path) -> str:
    """Return the identifier of an entry of 'training' or 'test'.

    v1 lists images without channel number. Where one is listed with it, the label tells.
    """
    stem = _stem(_image(entry, path))
    if isinstance(entry, Mapping) and "label" in entry:
        label = _stem(str(entry["label"]))
        if re.fullmatch(re.escape(label) + CHANNEL_NUMBER, stem):
            return label
    return stem


def _image(entry: Any, path: Path) -> str:
    image = entry.get("image") if isinstance(entry, Mapping) else entry
    if not isinstance(image, str):
        raise DataError(
            f'{path}: a case must be listed as {{"image": "./imagesTr/ID.nii.gz", "label": '
            f'"./labelsTr/ID.nii.gz"}}; found {entry!r}'
        )
    return PurePosixPath(image.replace("\\", "/")).name


def _stem(name: str) -> str:
    name = PurePosixPath(name.replace("\\", "/")).name
    stem, ending = split_ending(name)
    return stem if ending else name.split(".")[0]
