"""nnUNet_train: train and validate one fold of one model."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from nnunetlike.core.errors import UsageError
from nnunetlike.core.in_use import using
from nnunetlike.core.paths import CONFIGURATIONS, DEFAULT_PLANS, LOW, parse_fold, task_name
from nnunetlike.core.seeding import fresh_seed
from nnunetlike.networks.transfer import LEAST_SHARE
from nnunetlike.run.batch_workers import with_workers_that_fit, workers_asked
from nnunetlike.run.cascade import hand_on, require_previous_stage
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.compile_option import add_compile_options, compile_wish
from nnunetlike.run.fold import Fold, FoldRun, resolve
from nnunetlike.run.interrupted import (
    command_that_goes_on,
    has_checkpoint_since,
    interruption_explained,
)
from nnunetlike.run.launch import is_launched, launch, work_as_launched
from nnunetlike.run.performance import add_measurement_options, measure, measurement_from
from nnunetlike.run.resume import as_restarted
from nnunetlike.run.train_fold import find_learning_rate, load_for_validation, train
from nnunetlike.run.validate_fold import dice_table, validate_fold, validation_folder
from nnunetlike.training.distributed import TIMEOUT_S
from nnunetlike.training.recipe import TrainerRecipe
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.runtime import (
    Runtime,
    SingleProcess,
    choose_device,
    choose_precision,
)

DETERMINISTIC_SEED = 12345
EARLY_STOPPING_EPOCHS = 100
RECIPE_OPTIONS = ("epochs", "iterations", "val_iterations", "batch_size")
logger = logging.getLogger(__name__)


def build_parser(prog: str = "nnUNet_train", processes: int | None = None) -> CommandParser:
    """Return the parser of a training command; `processes` are started when not told how many."""
    parser = CommandParser(
        prog=prog,
        description="Trains one fold of one model on a task that nnUNet_plan_and_preprocess "
        "prepared, then predicts its validation cases and writes their Dice. Everything goes to "
        "RESULTS_FOLDER/nnUNet/CONFIGURATION/TASK/TRAINER__PLANS/fold_N.",
        examples=(
            f"{prog} 3d_fullres nnUNetTrainerV2 4 0",
            f"{prog} 3d_fullres nnUNetTrainerV2 4 0 -c",
            f"{prog} 2d nnUNetPlusPlusTrainerV2 4 all --epochs 100",
        ),
    )
    add_positionals(parser)
    add_v1_options(parser)
    add_our_options(parser)
    add_options_of_several_processes(parser, processes)
    add_measurement_options(parser)
    return parser


def add_positionals(parser: CommandParser) -> None:
    """Add the four words every training command takes."""
    add = parser.add_argument
    add("network", choices=CONFIGURATIONS, metavar="CONFIGURATION", help=", ".join(CONFIGURATIONS))
    add("network_trainer", metavar="TRAINER", help="nnUNetTrainerV2, nnUNetPlusPlusTrainerV2, ...")
    add("task", metavar="TASK", help="name (Task004_Hippocampus) or number of the task")
    add("fold", metavar="FOLD", help="0, 1, ... 4, 'all' to train on every case, or "
        "'official' for the own lists of a data set of videos")  # fmt: skip


def add_v1_options(parser: CommandParser) -> None:
    """Add the options of nnU-Net v1."""
    add = parser.add_argument
    flag = "store_true"
    add("-val", "--validation_only", action=flag, help="do not train; predict and evaluate")
    add("-c", "--continue_training", action=flag, help="go on from the last checkpoint")
    add("-p", default=DEFAULT_PLANS, metavar="PLANS", help="plans identifier")
    add("--use_compressed_data", action=flag, help="read npz files; saves disk, costs time")
    add("--deterministic", action=flag, help="repeatable results, slower on GPUs")
    add("--npz", action=flag, help="keep the probabilities of the validation, for ensembles")
    add("--find_lr", action=flag, help="only run a learning-rate range test")
    add("--valbest", action=flag, help="with -val: take model_best instead of the final weights")
    add(
        "-chk",
        "--checkpoint",
        metavar="NAME|FILE",
        help="with -val: validate these weights, final, latest, best or a file, into "
        "validation_NAME; the postprocessing of the fold stays as it is",
    )
    add("--fp32", action=flag, help="compute in single precision throughout")
    add("--val_folder", help="where the validation goes, validation_raw when absent")
    add("--disable_saving", action=flag, help="save neither best nor final weights")
    add("--disable_postprocessing_on_folds", action=flag, help="no postprocessing per fold")
    add("--disable_validation_inference", action=flag, help="no validation after training")
    add("--val_disable_overwrite", action=flag, help="keep validation predictions that exist")
    add("--disable_next_stage_pred", action=flag, help="no predictions for a next stage")
    add("-pretrained_weights", type=Path, metavar="FILE", help="checkpoint to start from, ours or "
        "nnU-Net v1's (X.model) or v2's (X.pth); a table says what fits")  # fmt: skip


def add_our_options(parser: CommandParser) -> None:
    """Add the options that replace parts of the recipe, and those of the machine."""
    add = parser.add_argument
    add("--epochs", type=int, help="number of epochs; as the trainer says when absent")
    add("--iterations", type=int, help="training batches per epoch")
    add("--val_iterations", type=int, help="validation batches per epoch")
    add("--batch_size", type=int, help="patches per batch; as planned when absent")
    add("--base_num_features", type=int, help="features of the first level")
    add("--freeze", choices=("encoder",), help="part of the network that keeps its weights; with "
        "-pretrained_weights")  # fmt: skip
    add("--pretrained_share", type=float, default=LEAST_SHARE, metavar="SHARE", help="least share "
        "of the network that -pretrained_weights must fit; 0 takes whatever fits")  # fmt: skip
    add("--lr", type=float, help="learning rate to begin with; as the trainer says when absent")
    add(
        "--early_stopping",
        type=int,
        nargs="?",
        const=EARLY_STOPPING_EPOCHS,
        metavar="EPOCHS",
        help="end when the average online Dice has not risen for so many epochs "
        f"({EARLY_STOPPING_EPOCHS} without a number)",
    )
    add(
        "--ignore_memory_estimate",
        action="store_true",
        help="train even if less memory is free than the estimate says is needed",
    )
    add(
        "--previous_trainer",
        metavar="NAME",
        help="with 3d_cascade_fullres: trainer of 3d_lowres, where it is not the usual one",
    )
    add("--seed", type=int, help="seed of the run; drawn and written down when absent")
    add_compile_options(parser, "a long training in bfloat16 on a CPU is")
    add("--device", help="cpu, cuda or cuda:1; CUDA where there is one when absent")
    add("--num_workers", type=int, help="processes that make training batches")
    add(
        "--augment_on", choices=("cpu", "device"), default="cpu",
        help="who augments patches: these processes (the default), or the device that trains",
    )  # fmt: skip


def add_options_of_several_processes(parser: CommandParser, processes: int | None) -> None:
    """Add the options of training in several processes."""
    add = parser.add_argument
    add(
        "--nproc", "-gpus", type=int, metavar="N", default=processes,
        help="train in N processes of this machine, each on a GPU of its own where there are GPUs",
    )  # fmt: skip
    add("--master_port", type=int, help="port where they meet; a free one when absent")
    add("--dbs", action="store_true", help="several processes share the planned batch")
    add(
        "--ddp_timeout", type=float, default=TIMEOUT_S, metavar="SECONDS",
        help="how long the processes wait for one another within a step",
    )  # fmt: skip
    add(
        "--legacy_ddp_dice", action="store_true",
        help="nnU-Net v1's too small gradient of the Dice over a batch spread over processes",
    )  # fmt: skip
    add("--local_rank", type=int, help="set by launchers; the environment says the same")


def recipe_from(args: argparse.Namespace) -> TrainerRecipe:
    """Return the trainer's recipe with the options of the command line.

    Raises:
        UsageError: the trainer is unknown or a number is out of range.
    """
    recipe = TRAINERS.get(args.network_trainer)
    changes = {name: value for name in RECIPE_OPTIONS if (value := getattr(args, name)) is not None}
    recipe = replace(recipe, **changes, batch_per_process="shared" if args.dbs else "plan")
    if args.previous_trainer is not None:
        if recipe.previous_trainer is None:
            raise UsageError(f"--previous_trainer: {recipe.name} is not a trainer of a cascade")
        recipe = replace(recipe, previous_trainer=TRAINERS.get(args.previous_trainer).name)
    if args.base_num_features is not None:
        recipe = recipe.with_base_features(args.base_num_features)
    return recipe if args.lr is None else recipe.with_rate(args.lr)


def fold_run_from(args: argparse.Namespace) -> FoldRun:
    """Return the run that a command line asks for.

    Raises:
        UsageError: something does not exist, or two options contradict one another.
    """
    if args.continue_training and args.pretrained_weights:
        raise UsageError("-c goes on with its own weights; leave out -pretrained_weights")
    goes_on = args.continue_training or args.validation_only
    if args.freeze and not (args.pretrained_weights or goes_on):
        raise UsageError(
            f"--freeze {args.freeze} keeps pretrained weights; give them with -pretrained_weights"
        )
    if not 0 <= args.pretrained_share <= 1:
        raise UsageError(f"--pretrained_share {args.pretrained_share:g}: a share is from 0 to 1")
    if args.early_stopping is not None and args.early_stopping < 1:
        raise UsageError(f"--early_stopping {args.early_stopping}: give 1 epoch or more")
    if args.valbest and args.checkpoint:
        raise UsageError("--valbest and -chk both choose weights; leave one out")
    if (args.valbest or args.checkpoint) and not args.validation_only:
        option = "--valbest" if args.valbest else "-chk"
        raise UsageError(f"{option} chooses the weights for -val; give -val too, or leave it out")
    return FoldRun(
        recipe=recipe_from(args),
        configuration=args.network,
        task=task_name(args.task),
        fold=parse_fold(args.fold),
        plans_identifier=args.p,
        seed=_seed(args),
        seed_is_asked=args.seed is not None,
        deterministic=args.deterministic,
        fp32=args.fp32,
        workers=workers_asked(args.num_workers),
        augment_on=args.augment_on,
        use_compressed_data=args.use_compressed_data,
        keep_checkpoints=not args.disable_saving,
        continue_training=args.continue_training,
        early_stopping=args.early_stopping,
        compile=compile_wish(args),
        ignore_memory_estimate=args.ignore_memory_estimate,
        pretrained_weights=args.pretrained_weights,
        pretrained_share=args.pretrained_share,
        freeze=args.freeze,
        val_folder=args.val_folder or validation_folder(args.checkpoint),
        save_npz=args.npz,
        overwrite_validation=not args.val_disable_overwrite,
        infer_validation=not args.disable_validation_inference,
        postprocess=not args.disable_postprocessing_on_folds and args.checkpoint is None,
        checkpoint="best" if args.valbest else args.checkpoint,
    )


def _seed(args: argparse.Namespace) -> int:
    if args.seed is not None:
        if args.seed < 0:
            raise UsageError(f"--seed {args.seed}: a seed is 0 or more")
        return int(args.seed)
    return DETERMINISTIC_SEED if args.deterministic else fresh_seed()


def execute(args: argparse.Namespace, words: Sequence[str]) -> int | None:
    """Train and validate as asked; `words` are those of the command line.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came; the message has the command that goes on.
    """
    if is_launched():
        return work_as_launched(args, partial(train_and_validate, args, words))
    if args.nproc is not None:
        return _launch(args, words)
    if args.master_port is not None:
        raise UsageError("--master_port is where several processes meet; give --nproc N too")
    device = choose_device(args.device)
    train_and_validate(args, words, SingleProcess(device, choose_precision(device, fp32=args.fp32)))
    return None


def _launch(args: argparse.Namespace, words: Sequence[str]) -> int:
    measurement_from(args)  # so that what is wrong is said once, before all begins
    fold = resolve(fold_run_from(args))
    begin = time.time()

    def onward() -> str:
        """Return how to go on, if anything was saved."""
        saved = has_checkpoint_since(fold.folder, begin)
        return f"Go on with: {command_that_goes_on(words, '-c')}" if saved else ""

    return launch(words, args.nproc, port=args.master_port, device=args.device, onward=onward)


def train_and_validate(args: argparse.Namespace, words: Sequence[str], runtime: Runtime) -> None:
    """Train and validate as asked, in the process or processes of a runtime.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came; the message has the command that goes on.
    """
    measurement = measurement_from(args)
    run = fold_run_from(args)
    run = replace(run, seed=runtime.first(run.seed))
    if runtime.is_main:
        resolve(run)  # makes the splits if there are none
    runtime.meet("the splits are made")
    fold = with_workers_that_fit(as_restarted(resolve(run, runtime), runtime))
    require_previous_stage(fold)
    with using(fold.dataset):
        if measurement is not None:
            measure(fold, runtime, measurement)
            return
        if args.find_lr:
            find_learning_rate(fold, runtime)
            return
        network = _trained(args, words, fold, runtime)
        if run.infer_validation:
            _validate(words, fold, network, runtime)
        if args.network == LOW and not args.disable_next_stage_pred:
            hand_on(fold, network, runtime)


def _trained(
    args: argparse.Namespace, words: Sequence[str], fold: Fold, runtime: Runtime
) -> nn.Module:
    if args.validation_only:
        return load_for_validation(fold)
    begin = time.time()

    def onward(is_saved: bool) -> str:
        """Return the command that goes on, from what was saved if anything was."""
        goes_on = is_saved or has_checkpoint_since(fold.folder, begin)
        return command_that_goes_on(words, "-c" if goes_on else None)

    with interruption_explained("training was interrupted", onward):
        return train(fold, runtime)


def _validate(words: Sequence[str], fold: Fold, network: nn.Module, runtime: Runtime) -> None:
    folder = fold.folder / fold.run.val_folder
    with interruption_explained(
        f"the validation was interrupted; finished cases stay in {folder}",
        lambda _: command_that_goes_on(words, "-val"),
    ):
        summary = validate_fold(fold, network, runtime)
    if runtime.is_main:
        print(f"validation of {len(fold.split.val)} cases in {folder}:")
        print(dice_table(summary))


def main(
    argv: Sequence[str] | None = None,
    prog: str = "nnUNet_train",
    processes: int | None = None,
) -> int:
    """Run a training command and return its exit status.

    Args:
        argv: its arguments; those of this process when absent.
        prog: its name.
        processes: how many to start when neither a launcher nor the arguments say.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(partial(execute, words=words), partial(build_parser, prog, processes), words)


if __name__ == "__main__":
    raise SystemExit(main())
