#!/usr/bin/env bash
# Trains UNet++ in several processes of this machine, validates it and prints its Dice.
# usage: bash test/train_full_8p.sh -path DIR [options] [-- options of nnUNet_train]
# options, with one dash or two:
#   -path DIR     folder of nnUNet_raw, nnUNet_preprocessed and RESULTS_FOLDER
#   -task NAME    name or number of the task (Task003_Liver)
#   -fold N       0, 1, ... or all (0)
#   -plans ID     plans identifier (nnUNetPlansv2.1)
#   -nproc N      processes, each on a GPU of its own where there are GPUs (8)
#   -port P       port where they meet; a free one when absent
#   -- ...        the rest goes to nnUNet_train
set -euo pipefail
source "$(dirname "$0")/train_common.sh"
read_options "path task fold plans nproc port" "$@"
train_together
print_dice 8p
