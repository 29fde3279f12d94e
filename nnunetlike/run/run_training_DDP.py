"""nnUNet_train_DDP: nnUNet_train in several processes; also the script that launchers start.

Worker processes import the script they were started from, so whatever takes long or much memory to
import is imported within.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file, whose folder is no place to import from
    sys.path[0] = str(Path(__file__).resolve().parents[2])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    import torch

    from nnunetlike.run.run_training import main

    name = Path(sys.argv[0]).name  # nnUNet_train_DDP, nnUNet_train_DP or that of this file
    return main(argv, prog=name, processes=torch.cuda.device_count() or 1)


if __name__ == "__main__":
    raise SystemExit(main())
