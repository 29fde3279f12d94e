"""`--compile`, `--no_compile` and nnU-Net v2's variable for the same."""

from __future__ import annotations

import argparse
import os

from nnunetlike.core.errors import UsageError
from nnunetlike.run.command_line import CommandParser
from nnunetlike.training.compiling import Wish

VARIABLE = "nnUNet_compile"
_YES = ("true", "1", "t")


def add_compile_options(parser: CommandParser, unasked: str) -> None:
    """Add the options; `unasked` is what is compiled without them."""
    add = parser.add_argument
    add("--compile", action="store_true", help="let torch.compile make the network's code, as "
        f"nnUNet_compile=1 does; {unasked} compiled without")  # fmt: skip
    add("--no_compile", action="store_true", help="compile nothing, as nnUNet_compile=0 does")


def compile_wish(args: argparse.Namespace) -> Wish:
    """Return what options, or else the variable, say; `auto` if nothing does.

    Raises:
        UsageError: both options are given.
    """
    if args.compile and args.no_compile:
        raise UsageError("--compile and --no_compile contradict each other; drop one")
    if args.compile or args.no_compile:
        return "on" if args.compile else "off"
    value = os.environ.get(VARIABLE, "").strip().lower()
    if not value:
        return "auto"
    return "on" if value in _YES else "off"
