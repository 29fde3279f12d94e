"""Tasks of the Medical Segmentation Decathlon to raw tasks of nnU-Net.

A task of the decathlon holds one file per case, 4-D where it has several channels; a raw task holds
one 3-D file per case and channel. The source folder is only read.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.folders import atomic_folder, visible_files
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import process_map
from nnunetlike.core.paths import raw_data
from nnunetlike.data.dataset import SUFFIX, DatasetSpec

DESCRIPTION = "dataset.json"
IMAGES, TEST_IMAGES, LABELS = "imagesTr", "imagesTs", "labelsTr"


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote."""

    folder: Path
    training_images: int
    test_images: int
    labels: int
    """Files written, by kind; a case has one image file per channel."""


def convert_task(source: Path, *, task_id: int | None = None, processes: int) -> Converted:
    """Convert a task folder of the decathlon into a raw task.

    3-D files are copied as they are to `ID_0000.nii.gz`, 4-D files become one file per index of
    the last axis; labels and dataset.json are copied. An existing raw task of the same name is
    replaced, when the new one is complete.

    Args:
        source: folder `Task03_Liver` with `dataset.json`, `imagesTr`, `labelsTr` and `imagesTs`
            (which may be missing if dataset.json lists no test case).
        task_id: number of the raw task; that of the source if None.
        processes: most worker processes; 0 or 1 converts in this process.

    Raises:
        UsageError: the folder is not called `TaskNN_Name`, or is its own destination.
        DataError: something is missing, or an image is neither 3-D nor 4-D.
    """
    source = Path(os.path.abspath(source))  # noqa: PTH100  resolve() would follow links
    target = raw_data() / _task_name(source, task_id)
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise UsageError(
            f"{source} is a raw task already, and would be replaced by its own conversion. Give "
            "the folder of the decathlon"
        )
    _check_source(source)
    with atomic_folder(target) as folder:
        training = _convert_images(source / IMAGES, folder / IMAGES, processes)
        testing = _convert_images(source / TEST_IMAGES, folder / TEST_IMAGES, processes)
        labels = _copy_labels(source / LABELS, folder / LABELS)
        shutil.copyfile(source / DESCRIPTION, folder / DESCRIPTION)
    return Converted(target, training, testing, labels)


def _task_name(source: Path, task_id: int | None) -> str:
    match = re.fullmatch(r"Task(\d+)_(.+)", source.name)
    if match is None:
        raise UsageError(
            f"{source.name!r} is not the name of a task of the decathlon: it must be Task, a "
            "number, an underscore and a name, such as Task03_Liver"
        )
    number = int(match[1]) if task_id is None else task_id
    return f"Task{number:03d}_{match[2]}"


def _check_source(source: Path) -> None:
    """Refuse a folder that is incomplete or was converted before."""
    if not source.is_dir():
        raise DataError(f"{source} is not a folder")
    missing = [name for name in (IMAGES, LABELS) if not (source / name).is_dir()]
    if not (source / DESCRIPTION).is_file():
        missing.append(DESCRIPTION)
    elif DatasetSpec.load(source / DESCRIPTION).test and not (source / TEST_IMAGES).is_dir():
        missing.append(f"{TEST_IMAGES} (dataset.json lists test cases)")
    if missing:
        found = sorted(e.name for e in source.iterdir() if not e.name.startswith("."))
        raise DataError(
            f"{source} lacks {', '.join(missing)}; it holds {', '.join(found) or 'nothing'}. Give "
            "the folder that holds dataset.json, imagesTr, imagesTs and labelsTr"
        )
    images = visible_files(source / IMAGES, SUFFIX)
    if not images:
        raise DataError(f"{source / IMAGES} holds no {SUFFIX} file")
    cases = set(DatasetSpec.load(source / DESCRIPTION).training)
    if not cases & {path.name.removesuffix(SUFFIX) for path in images} and all(
        re.search(r"_\d{4}$", path.name.removesuffix(SUFFIX)) for path in images
    ):
        raise DataError(
            f"{source}: the images end in _0000 already ({images[0].name}), so this is a raw task "
            f"of nnU-Net and needs no conversion. Copy it to {raw_data()} instead"
        )


def _convert_images(source: Path, target: Path, processes: int) -> int:
    """Convert every image of a folder, which may be missing; return how many files were written."""
    target.mkdir()
    files: Sequence[Path] = visible_files(source, SUFFIX) if source.is_dir() else ()
    written = process_map(
        partial(split_channels, target=target),
        files,
        processes=processes,
        name=_file_name,
        cost=_memory,
        title=f"converting {source.name}" if files else "",
    )
    return sum(written)


def split_channels(path: Path, *, target: Path) -> int:
    """Write the channels of an image into `target`; return how many there are.

    Raises:
        DataError: the file cannot be read, or is neither 3-D nor 4-D.
    """
    case_id = path.name.removesuffix(SUFFIX)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        dimension = reader.GetDimension()
        if dimension == 3:
            shutil.copyfile(path, target / f"{case_id}_0000{SUFFIX}")
            return 1
        if dimension != 4:
            raise DataError(
                f"{path} has {dimension} dimensions; expected 3, or 4 with the channels last"
            )
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path} cannot be read as an image: {reason}") from None
    channels = sitk.GetArrayFromImage(image)
    direction = np.reshape(image.GetDirection(), (4, 4))[:3, :3].ravel().tolist()
    for number, voxels in enumerate(channels):
        channel = sitk.GetImageFromArray(voxels)
        channel.SetSpacing(image.GetSpacing()[:3])
        channel.SetOrigin(image.GetOrigin()[:3])
        channel.SetDirection(direction)
        file = target / f"{case_id}_{number:04d}{SUFFIX}"
        sitk.WriteImage(channel, str(file), useCompression=True)
    return len(channels)


def _copy_labels(source: Path, target: Path) -> int:
    target.mkdir()
    files = visible_files(source, SUFFIX)
    for path in files:
        shutil.copyfile(path, target / path.name)
    return len(files)


def _memory(path: Path) -> float:
    """Return about how many bytes converting a file takes: all channels, and one as an image."""
    return 3 * unpacked_size(path)


def _file_name(path: Path) -> str:
    return path.name
