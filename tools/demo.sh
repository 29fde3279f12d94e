#!/usr/bin/env bash
# From nothing to a Dice table on a synthetic CT task, with the commands a user types.
# usage: bash tools/demo.sh [folder]     (default: demo; at most 10 minutes on two cores)
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
make_environment requirements.txt

home=$(realpath -m "${1:-demo}")
rm -rf "$home/raw" "$home/preprocessed" "$home/results" "$home/pictures"
started=$SECONDS
run() { printf '\n$ %s\n' "$*"; "$@"; }

export nnUNet_raw_data_base=$home/raw nnUNet_preprocessed=$home/preprocessed
export RESULTS_FOLDER=$home/results
cores=$(nproc 2>/dev/null || echo 2)
trainer=nnUNetPlusPlusTrainerV2
raw=$nnUNet_raw_data_base/nnUNet_raw_data/Task009_Phantom

run python tools/make_phantom.py "$home/Task09_Phantom"
run nnUNet_convert_decathlon_task -i "$home/Task09_Phantom" -p "$cores"
run nnUNet_plan_and_preprocess -t 9 --verify_dataset_integrity -tl "$cores" -tf "$cores"
run nnUNet_train 3d_fullres $trainer 9 0 \
    --epochs 8 --iterations 30 --val_iterations 5 --base_num_features 8 --seed 1
run nnUNet_predict -i "$raw/imagesTs" -o "$home/predictions" -t 9 -tr $trainer -m 3d_fullres \
    --overwrite_existing
run nnUNet_evaluate_folder -ref "$home/Task09_Phantom/labelsTs" -pred "$home/predictions" -l 1 2
run nnUNet_plot_task_pngs -t 9 -o "$home/pictures" --predictions "$home/predictions"

model=$RESULTS_FOLDER/nnUNet/3d_fullres/Task009_Phantom/${trainer}__nnUNetPlansv2.1
printf '\nDice in fold 0 validation and on the new cases:\n'
python - "$model/fold_0/validation_raw/summary.json" "$home/predictions/summary.json" <<'PY'
import json
import sys

names = {"1": "organ", "2": "lesion"}
means = [json.load(open(path))["results"]["mean"] for path in sys.argv[1:]]
print(f"{'label':<10}{'validation':>12}{'new cases':>12}")
for label, name in names.items():
    print(f"{name:<10}" + "".join(f"{mean[label]['Dice']:>12.4f}" for mean in means))
worst = min(mean["1"]["Dice"] for mean in means)
if not worst >= 0.85:
    sys.exit(f"error: the organ's Dice {worst:.4f} is below 0.85")
PY
cat <<END

Training curve  $model/fold_0/progress.png
Overlays        $home/pictures
Predictions     $home/predictions
Done in $((SECONDS - started)) s after installing.
END
