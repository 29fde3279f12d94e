"""nnUNet_predict: predict a folder of images with a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from nnunetlike.core import paths
from nnunetlike.core.dask_cluster import dask_cluster
from nnunetlike.core.errors import UsageError
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.inference.model_bundle import FINAL, ModelBundle, load_bundle
from nnunetlike.inference.predict import predict_folder
from nnunetlike.inference.remote import ModelSource, PredictElsewhere
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.inference.videos import CLINICAL
from nnunetlike.networks.compiling import obstacle
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.compile_option import add_compile_options, compile_wish
from nnunetlike.run.dask_option import add_dask_option
from nnunetlike.run.v2_folders import v2_model_folder
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.runtime import choose_device

LOW_PREDICTIONS = "3d_lowres_predictions"
"""Folder of the output in which the first stage of a cascade is predicted, as in nnU-Net v1."""


def build_parser() -> CommandParser:
    """Return the parser of nnUNet_predict."""
    parser = CommandParser(
        prog="nnUNet_predict",
        description="Predict images with a trained model. Each case consists of ID_0000.nii.gz, "
        "ID_0001.nii.gz, ..., one file per channel; its prediction is ID.nii.gz on the same grid.",
        examples=(
            "nnUNet_predict -i images -o predictions -t 4 -m 3d_fullres",
            "nnUNet_predict -i images -o predictions --model_folder FOLDER -f 0 --disable_tta",
        ),
    )
    add = parser.add_argument
    add("-i", "--input_folder", required=True, type=Path, help="folder of images")
    add("-o", "--output_folder", required=True, type=Path, help="folder for predictions")
    add("-t", "-d", "--task_name", help="task name or number, also of a data set of nnU-Net v2")
    add("--model_folder", type=Path, help="folder of a trained model, wherever it lies, in place "
        "of -t, -m, -tr and -p; those of nnU-Net v2 need "
        "pip install \"nnunetlike[v2]\"")  # fmt: skip
    add("-tr", "--trainer_class_name", default=paths.DEFAULT_TRAINER, help="name of the trainer")
    add("-ctr", "--cascade_trainer_class_name", default=paths.DEFAULT_CASCADE_TRAINER,
        help="name of the trainer instead of -tr when -m is 3d_cascade_fullres")  # fmt: skip
    add("-l", "--lowres_segmentations", type=Path, help="predictions of 3d_lowres; only with "
        "-m 3d_cascade_fullres")  # fmt: skip
    add("-m", "--model", default="3d_fullres", help="2d, 3d_lowres, 3d_fullres, "
        "3d_cascade_fullres (both stages, unless -l gives the first), or video2d, whose "
        f"trainer is {paths.DEFAULT_VIDEO_TRAINER} if -tr is left out")  # fmt: skip
    add("-p", "--plans_identifier", default=paths.DEFAULT_PLANS, help="name of the plans")
    add("-f", "--folds", nargs="+", default=None, help="folds whose probabilities are averaged, "
        "numbers or 'all'; None takes every fold_* that was trained")  # fmt: skip
    add("-z", "--save_npz", action="store_true", help="also write probabilities for ensembling")
    add("--part_id", type=int, default=0, help="number of this part, from 0")
    add("--num_parts", type=int, default=1, help="parts that share the cases, for several GPUs")
    add("--num_threads_preprocessing", type=int, default=6, help="processes that prepare cases, "
        "at most one per core; each holds one case in memory; 0 prepares in between")  # fmt: skip
    add("--num_threads_nifti_save", type=int, default=2, help="processes that write predictions; "
        "0 writes between predictions")  # fmt: skip
    add("--disable_tta", action="store_true", help="do not average over mirrored views; videos "
        "never are")  # fmt: skip
    add("--overwrite_existing", action="store_true", help="predict finished cases again")
    add("--mode", choices=("normal", "fast", "fastest"), default="normal", help="fast and fastest "
        "resample the label map instead of the probabilities")  # fmt: skip
    add("--all_in_gpu", choices=("None", "False", "True"), default="None", help="sum windows in "
        "GPU memory, in main memory, or where there is room; no effect on CPU")  # fmt: skip
    add("--step_size", type=float, default=0.5, help="distance of windows, share of the patch; "
        "frames of videos are seen whole")  # fmt: skip
    add("-chk", "--checkpoint", default=FINAL, help="checkpoint name, without .model")
    add("--disable_mixed_precision", action="store_true", help="compute in float32 on the GPU; a "
        "CPU does so unless --bf16 is given")  # fmt: skip
    add("--bf16", action="store_true", help="compute in bfloat16: faster where the processor has "
        "it, but numbers differ slightly")  # fmt: skip
    add_compile_options(parser, "nothing is")
    add("--bidirectional", action="store_true", help="videos: go through the frames backwards too, "
        "and average; needs the end of the video before its beginning is done")  # fmt: skip
    add("--overlay", nargs="?", const="gif", choices=("gif", "mp4"), help="videos: also write "
        "ID.gif or ID.mp4 to watch, gif if nothing follows; mp4 needs "
        "pip install \"nnunetlike[video]\"")  # fmt: skip
    add_dask_option(parser, "--num_threads_preprocessing and --num_threads_nifti_save")
    add("--device", help="cpu, cuda, cuda:1, ...; None takes a GPU if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run nnUNet_predict and return its exit status."""
    return run_command(_predict, build_parser, argv)


def _predict(args: argparse.Namespace) -> None:
    folder, output = _model_folder(args), args.output_folder
    previous = args.lowres_segmentations
    if args.model == paths.CASCADE and previous is None:
        previous = output / LOW_PREDICTIONS
        first = argparse.Namespace(**{**vars(args), "save_npz": False, "overlay": None})
        _predict_with(first, _first_stage_folder(args, folder), previous)
    bundle = _predict_with(args, folder, output, previous)
    if bundle.video is not None and (output / CLINICAL).is_file():
        print(f"volumes, ejection fraction and strain per patient: {output / CLINICAL}")


def _predict_with(
    args: argparse.Namespace, folder: Path, output: Path, previous: Path | None = None
) -> ModelBundle:
    """Predict the images of a command line with one model, and return it."""
    folds = _folds(args.folds)
    settings = _settings(args, args.dask is not None)
    settings = replace(settings, label_names=_label_names(args))
    bundle = load_bundle(folder, folds, args.checkpoint)
    _announce(bundle, None if args.dask else settings)
    images = args.input_folder
    if args.dask is None:
        written = predict_folder(bundle, images, output, settings, previous=previous)
    else:
        with dask_cluster(args.dask) as cluster:
            model = ModelSource.of(bundle, folds, args.checkpoint)
            predictor = PredictElsewhere(cluster, model, partial(_settings, args))
            written = predict_folder(
                bundle, images.absolute(), output.absolute(), settings, predictor,
                previous=None if previous is None else previous.absolute(),
            )  # fmt: skip
    print(f"{len(written)} predictions are in {output}")
    return bundle


def _first_stage_folder(args: argparse.Namespace, second: Path) -> Path:
    """Return the model of the low resolution: of `-tr`, else the one the second stage came after.

    Raises:
        DataError: a checkpoint of the second stage cannot be read.
    """
    task, plans = paths.task_name(args.task_name), args.plans_identifier
    named = paths.model_folder(paths.LOW, task, args.trainer_class_name, plans)
    if named.is_dir() or not second.is_dir():
        return named
    trainer = TRAINERS.get(args.cascade_trainer_class_name).previous_trainer
    return paths.model_folder(paths.LOW, task, trainer or args.trainer_class_name, plans)


def _settings(args: argparse.Namespace, elsewhere: bool = False) -> PredictionSettings:
    """Return how to predict, on the device of the process that asks.

    Args:
        args: of the command line.
        elsewhere: another process predicts, and what this one has does not matter.
    """
    device = torch.device("cpu") if elsewhere else choose_device(args.device)
    return PredictionSettings(
        device=device,
        step_size=args.step_size,
        mirror=not args.disable_tta,
        mode=args.mode,
        save_npz=args.save_npz,
        overwrite=args.overwrite_existing,
        part=args.part_id,
        parts=args.num_parts,
        preprocessing_processes=args.num_threads_preprocessing,
        export_processes=args.num_threads_nifti_save,
        autocast=_autocast(device, args),
        compiled=compile_wish(args) == "on",
        accumulate_on_device={"None": None, "False": False, "True": True}[args.all_in_gpu],
        bidirectional=args.bidirectional,
        overlay=args.overlay,
    )


def _model_folder(args: argparse.Namespace) -> Path:
    """Return the folder of the model: as named, else one trained here or by v1, else by v2."""
    cascade = args.model == paths.CASCADE
    if args.model_folder is not None:
        if cascade and args.lowres_segmentations is None:
            raise UsageError(
                "with --model_folder a cascade needs the predictions of 3d_lowres (-l)"
            )
        return Path(args.model_folder)
    if args.task_name is None:
        raise UsageError("name the model: either with -t (and -m, -tr, -p) or with --model_folder")
    other = v2_model_folder(
        args.task_name, args.model, args.trainer_class_name, args.plans_identifier
    )
    try:
        folder = _own_model_folder(args)
        if other is None or folder.is_dir():
            return folder
    except UsageError:
        if other is None:
            raise
    if cascade:
        raise UsageError(f"cascades of nnU-Net v2 ({other}) are not supported; use another -m")
    return other


def _own_model_folder(args: argparse.Namespace) -> Path:
    if args.lowres_segmentations is not None and args.model != paths.CASCADE:
        raise UsageError(f"-l belongs to -m 3d_cascade_fullres; leave it out for {args.model}")
    if args.model not in paths.CONFIGURATIONS:
        raise UsageError(f"-m {args.model!r} is unknown; use {', '.join(paths.CONFIGURATIONS)}")
    task = paths.task_name(args.task_name)
    if args.model == paths.CASCADE:
        trainer = args.cascade_trainer_class_name
        return paths.model_folder(args.model, task, trainer, args.plans_identifier)
    trainers = [args.trainer_class_name]
    if args.model == paths.VIDEO and trainers == [paths.DEFAULT_TRAINER]:
        trainers.append(paths.DEFAULT_VIDEO_TRAINER)
    folders = [paths.model_folder(args.model, task, t, args.plans_identifier) for t in trainers]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def _label_names(args: argparse.Namespace) -> Mapping[int, str] | None:
    """Return the names of a task of videos' labels, if its dataset.json is on this machine."""
    if args.model != paths.VIDEO:
        return None
    for home in (paths.preprocessed, paths.raw_data):
        with suppress(UsageError):  # the variable is not set
            path = home() / paths.task_name(args.task_name) / "dataset.json"
            if path.is_file():
                labels = DatasetSpec.load(path).labels
                return {value: labels.names[value] for value in labels.foreground}
    return None


def _folds(texts: Sequence[str] | None) -> list[int | str] | None:
    if texts is None or list(texts) == ["None"]:
        return None
    return [paths.parse_fold(text) for text in texts]


def _autocast(device: torch.device, args: argparse.Namespace) -> torch.dtype | None:
    if args.bf16 and args.disable_mixed_precision:
        raise UsageError("--bf16 and --disable_mixed_precision contradict each other; drop one")
    if args.bf16:
        return torch.bfloat16
    mixed = device.type == "cuda" and not args.disable_mixed_precision
    return torch.float16 if mixed else None


def _announce(bundle: ModelBundle, settings: PredictionSettings | None) -> None:
    """Say which model predicts and on which device; None: every worker has its own."""
    print(f"model: {bundle.folder}")
    for path in bundle.checkpoints:
        print(f"{path.parent.name}: {path.name}")
    if settings is None:
        print("device: that of each Dask worker")
        return
    kind = str(settings.autocast or torch.float32).removeprefix("torch.")
    how = _compiled_text(bundle, settings)
    print(f"device: {settings.device} ({kind}){how}")


def _compiled_text(bundle: ModelBundle, settings: PredictionSettings) -> str:
    if not settings.compiled:
        return ""
    reason = obstacle(bundle.network, settings.device)
    return "; the network is " + (f"not compiled: {reason}" if reason else "compiled")


if __name__ == "__main__":
    raise SystemExit(main())
