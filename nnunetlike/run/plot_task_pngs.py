"""nnUNet_plot_task_pngs: one picture a case, with its labels drawn over the image."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import default_processes, process_map
from nnunetlike.core.paths import preprocessed, raw_data, task_name
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import ending_in, format_of
from nnunetlike.data.store import CaseStore
from nnunetlike.evaluation.evaluator import score_case
from nnunetlike.evaluation.overlay import Overlay, busiest_slice, save_overlay
from nnunetlike.run.command_line import CommandParser, process_count, run_command


@dataclass(frozen=True, kw_only=True)
class RawCase:
    """Files of one picture on the grid of the raw images."""

    case_id: str
    image: Path
    channel: int
    """Channel of the image file to show: 0 unless the file holds several."""

    reference: Path | None
    prediction: Path | None


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_plot_task_pngs",
        description="Draws one picture a case: image and labels, in the slices with most "
        "foreground. Shows the preprocessed training cases (highest resolution), or the raw ones.",
        examples=("nnUNet_plot_task_pngs -t 4 -o pictures",),
    )
    parser.add_argument("-t", required=True, help="task name or number")
    parser.add_argument("-o", required=True, type=Path, help="folder for the pictures")
    parser.add_argument(
        "-num_processes",
        type=process_count,
        default=default_processes(),
        help="worker processes, 0: none",
    )
    parser.add_argument("-modality_idx", type=int, default=0, help="channel to show")
    parser.add_argument("--use_raw", action="store_true", help="show the raw data")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FOLDER",
        help="show the cases predicted in this folder beside their references (on the raw data)",
    )
    return parser


def plot(args: argparse.Namespace) -> None:
    """Draw every case."""
    task = task_name(args.t)
    if args.use_raw or args.predictions is not None:
        folder = raw_data() / task
        spec = DatasetSpec.load(folder / "dataset.json")
        cases = _raw_cases(folder, spec, _channel(spec, args.modality_idx), args.predictions)
        draw_raw = partial(_draw_raw, spec=spec, target=args.o)
        process_map(
            draw_raw,
            cases,
            processes=args.num_processes,
            name=_id_of,
            title="drawing",
            cost=_memory,
        )
        count = len(cases)
    else:
        spec = DatasetSpec.load(preprocessed() / task / "dataset.json")
        store = CaseStore(_stage_folder(preprocessed() / task))
        draw = partial(
            _draw_preprocessed,
            store=store,
            channel=_channel(spec, args.modality_idx),
            spec=spec,
            target=args.o,
        )
        count = len(
            process_map(
                draw,
                store.case_ids(),
                processes=args.num_processes,
                title="drawing",
                cost=lambda case: 3 * unpacked_size(store.array_file(case) or store.folder),
            )
        )
    print(f"{count} pictures are in {args.o}")


def _memory(case: RawCase) -> float:
    """Return about how many bytes it takes to draw a case."""
    files = (case.image, case.reference, case.prediction)
    return 6 * sum(unpacked_size(path) for path in files if path is not None)


def _channel(spec: DatasetSpec, channel: int) -> int:
    if not 0 <= channel < len(spec.modalities):
        known = ", ".join(f"{number} ({name})" for number, name in spec.modalities.items())
        raise UsageError(f"-modality_idx {channel} does not exist; the task has {known}")
    return channel


def _raw_cases(
    folder: Path, spec: DatasetSpec, channel: int, predictions: Path | None
) -> list[RawCase]:
    """Return the training cases, or all that have a prediction, test cases included.

    Raises:
        DataError: no case of the task has a prediction in the folder.
    """
    where = [(case_id, "imagesTr") for case_id in spec.training]
    if predictions is None:
        return [_raw_case(folder, spec, case_id, name, channel, None) for case_id, name in where]
    where += [(case_id, "imagesTs") for case_id in spec.test]
    ending = ending_in(predictions, spec.label_ending) if predictions.is_dir() else ""
    cases = [
        _raw_case(folder, spec, case_id, name, channel, predictions / f"{case_id}{ending}")
        for case_id, name in where
        if (predictions / f"{case_id}{ending}").is_file()
    ]
    if not cases:
        raise DataError(
            f"{predictions} holds no prediction of a case of {folder.name}; expected files such "
            f"as {spec.training[0]}{spec.label_ending}"
        )
    return cases


def _raw_case(
    folder: Path,
    spec: DatasetSpec,
    case_id: str,
    images: str,
    channel: int,
    prediction: Path | None,
) -> RawCase:
    label = folder / "labelsTr" / f"{case_id}{spec.label_ending}"
    files = spec.image_files(folder / images, case_id)
    is_one_file = len(files) == 1
    return RawCase(
        case_id=case_id,
        image=files[0] if is_one_file else files[channel],
        channel=channel if is_one_file else 0,
        reference=label if images == "imagesTr" else None,
        prediction=prediction,
    )


def _stage_folder(folder: Path) -> Path:
    """Return the folder of the preprocessed cases of the highest resolution."""
    stages = [entry for entry in folder.glob("*_stage*") if CaseStore(entry).case_ids()]
    volumes = [entry for entry in stages if "_2D_" not in entry.name]
    if not stages:
        raise DataError(
            f"{folder} holds no preprocessed case. Run nnUNet_plan_and_preprocess, or show the raw "
            "data with --use_raw"
        )
    return max(volumes or stages, key=lambda entry: int(entry.name.rpartition("stage")[2]))


def _draw_raw(case: RawCase, *, spec: DatasetSpec, target: Path) -> None:
    image, geometry = format_of(case.image).read([case.image])
    if case.channel >= len(image):
        raise DataError(f"{case.image} has {len(image)} channels, so there is no {case.channel}")
    label_maps: dict[str, LabelMap] = {}
    for title, path in (("reference", case.reference), ("prediction", case.prediction)):
        if path is None:
            continue
        label, _ = format_of(path).read_label(path)
        if label.shape != geometry.shape:
            raise DataError(
                f"{path} has {label.shape} voxels (D, H, W) but the image {geometry.shape}"
            )
        label_maps[title] = label
    overlay = _shown(
        Overlay(
            image=image[case.channel],
            label_maps=label_maps,
            spacing=geometry.spacing,
            names=spec.labels.names,
            title=case.case_id,
        ),
        spec,
    )
    if len(label_maps) == 2:
        maps = overlay.label_maps
        names = _with_dice(overlay.names, maps["prediction"], maps["reference"])
        overlay = replace(overlay, names=names)
    save_overlay(overlay, target / f"{case.case_id}.png")


def _shown(overlay: Overlay, spec: DatasetSpec) -> Overlay:
    """Return what is drawn: all of an image, of a video the frame with most foreground.

    That is the frame of the first label map, which in frames without a label holds what is ignored
    and not drawn.
    """
    if spec.video is None:
        return overlay
    ignore = spec.labels.ignore
    maps = {title: np.where(m == ignore, 0, m) for title, m in overlay.label_maps.items()}
    frame = busiest_slice(next(iter(maps.values())) > 0, 0) if maps else 0
    return replace(
        overlay,
        image=overlay.image[frame : frame + 1],
        label_maps={title: found[frame : frame + 1] for title, found in maps.items()},
        names={label: name for label, name in overlay.names.items() if label != ignore},
        title=f"{overlay.title}, frame {frame}",
    )


def _with_dice(
    names: Mapping[int, str], prediction: LabelMap, reference: LabelMap
) -> dict[int, str]:
    labels = [label for label in names if label > 0]
    structures = {str(label): (label,) for label in labels}
    scores = score_case(prediction, reference, (1.0, 1.0, 1.0), structures)
    return {label: f"{names[label]}, Dice {scores[str(label)]['Dice']:.3f}" for label in labels}


def _draw_preprocessed(
    case_id: str, *, store: CaseStore, channel: int, spec: DatasetSpec, target: Path
) -> None:
    data = store.load(case_id)
    record = store.record(case_id)
    overlay = Overlay(
        image=data[channel].astype(np.float32, copy=False),
        label_maps={"reference": data[-1].astype("int16")},
        spacing=record.spacing_after_resampling or record.original_spacing,
        names=spec.labels.names,
        title=case_id,
    )
    save_overlay(_shown(overlay, spec), target / f"{case_id}.png")


def _id_of(case: RawCase) -> str:
    return case.case_id


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(plot, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
