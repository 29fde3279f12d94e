# Sets the three folders of nnU-Net from one path: DIR/nnUNet_raw, DIR/nnUNet_preprocessed and
# DIR/RESULTS_FOLDER.
# usage: source test/env.sh DIR
if [ $# -lt 1 ] || [ ! -d "$1" ]; then
    echo "error: ${1:-no folder given}: give a folder that exists: source test/env.sh DIR" >&2
    return 2
fi
nnUNet_home=$(cd "$1" && pwd)
export nnUNet_raw_data_base=$nnUNet_home/nnUNet_raw
export nnUNet_preprocessed=$nnUNet_home/nnUNet_preprocessed
export RESULTS_FOLDER=$nnUNet_home/RESULTS_FOLDER
unset nnUNet_home nnUNet_raw nnUNet_results # nnU-Net v2's names could contradict these
