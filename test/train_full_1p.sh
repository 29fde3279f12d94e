#!/usr/bin/env bash
# Trains UNet++ in one process, validates it and prints its Dice.
# usage: bash test/train_full_1p.sh -path DIR [options] [-- options of nnUNet_train]
# options, with one dash or two:
#   -path DIR     folder of nnUNet_raw, nnUNet_preprocessed and RESULTS_FOLDER
#   -task NAME    name or number of the task (Task003_Liver)
#   -fold N       0, 1, ... or all (0)
#   -plans ID     plans identifier (nnUNetPlansv2.1)
#   -- ...        the rest goes to nnUNet_train
set -euo pipefail
source "$(dirname "$0")/train_common.sh"
read_options "path task fold plans nproc" "$@"
train_alone
print_dice 1p
