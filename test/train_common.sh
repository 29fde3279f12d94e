# Sourced by the train_*.sh: their options, and training in one process or in several.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
path='' task=Task003_Liver fold=0 plans=nnUNetPlansv2.1 nproc='' port='' output=.
more=()

# Prints the comment at the head of the script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

fail() {
    echo "error: $*. $(basename "$0") --help lists the options" >&2
    exit 2
}

# Reads the options of a script, with one dash or two, and sets the three folders.
# $1: names of the options it has; then what it was given.
read_options() {
    local known=" $1 " word name value
    shift
    while [ $# -gt 0 ]; do
        word=$1
        case $word in
            --) shift && more=("$@") && break ;;
            -h | -help | --help) usage && exit 0 ;;
            -?*) ;;
            *) fail "$word belongs to no option; options of nnUNet_train go after --" ;;
        esac
        name=${word#-} && name=${name#-}
        if [[ $name == *=* ]]; then
            value=${name#*=} name=${name%%=*}
            shift
        else
            [ $# -gt 1 ] || fail "$word needs a value"
            value=$2
            shift 2
        fi
        [[ $known == *" $name "* ]] ||
            fail "no option is called -$name; options of nnUNet_train go after --"
        printf -v "$name" %s "$value"
    done
    [ -n "$path" ] || fail "-path DIR is missing"
    [[ ${nproc:-1} =~ ^[1-9][0-9]*$ ]] || fail "-nproc $nproc: give 1 or more"
    command -v nnUNet_train >/dev/null || fail "nnUNet_train is not installed here"
    source "$root/test/env.sh" "$path" || exit
}

# Trains in one process, as these arguments say.
train_alone() {
    [ "${nproc:-1}" = 1 ] || fail "-nproc $nproc: several processes are started by the _8p script"
    nnUNet_train 3d_fullres nnUNetPlusPlusTrainerV2 "$task" "$fold" -p "$plans" "$@" \
        ${more[@]+"${more[@]}"}
}

# Trains in several processes that share the planned batch, as these arguments say.
train_together() {
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    python -m torch.distributed.launch --master_port="${port:-$(free_port)}" \
        --nproc_per_node="${nproc:-8}" "$root/nnunetlike/run/run_training_DDP.py" \
        3d_fullres nnUNetPlusPlusTrainerV2_hypDDP "$task" "$fold" --dbs -p "$plans" "$@" \
        ${more[@]+"${more[@]}"}
}

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

# Prints the Dice of the validation; $1 is 1p or 8p.
print_dice() {
    python "$root/tools/get_dice_result.py" -path "$path" -mode "$1" -task "$task" -fold "$fold" \
        -plans "$plans"
}

# Prints the throughput that was measured.
print_fps() {
    python - "$output/fps.json" <<'PY'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    found = json.load(file)
print(f"FPS: {found['fps']:.2f} (processes: {found['world_size']}, batch: {found['batch_size']})")
PY
}
