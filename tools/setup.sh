#!/usr/bin/env bash
# Sets up the virtual environment from requirements.lock, and does nothing where that is done.
# PYTHON=... names the interpreter to use, VENV=... the folder of the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
stamp=$venv/.made-for
need_gb=9

stop() {
    printf 'Set-up stopped: %s\n' "$1" >&2
    exit 1
}

# Prints the first interpreter that is new enough and can make an environment.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do
        if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    stop "Expected Python >= 3.11 with its venv module, got none of: \
${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}. \
Install one (Debian, Ubuntu: apt-get install python3-venv), or name yours: make PYTHON=/path/to/python3"
}

# What the environment was made for: a folder that was moved needs a new one.
state() {
    pwd
    cat requirements.lock
}

if state | cmp -s - "$stamp" && "$venv/bin/python" -P -c 'import attrlib' 2>/dev/null; then
    exit 0
fi
if [ -e "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$(pwd)" ]; then
    printf '%s was made for another folder and is made again.\n' "$venv"
    rm -rf "$venv"
fi

python=$(find_python)
if [ ! -e "$stamp" ]; then
    free_gb=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1024 / 1024))
    [ "$free_gb" -ge "$need_gb" ] || stop "Expected $need_gb GB of free disk here, got $free_gb GB. \
PyTorch is most of it; make room, or work on another disk."
fi

printf '[1/3] Virtual environment in %s (%s)\n' "$venv" "$("$python" --version)"
"$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)

# The smallest package of the lock tells quickly whether packages can be had at all.
probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
"${pip[@]}" download --quiet --no-deps --retries 1 --timeout 20 --dest "$probe" \
    "$(grep -m 1 '^tqdm==' requirements.lock)" >"$probe/log" 2>&1 ||
    stop "Expected a network from which pip can download, got: $(grep ERROR "$probe/log" | tail -n 1)"

printf '[2/3] Packages of requirements.lock (6.5 GB, about 3 minutes with a fast network)\n'
"${pip[@]}" install --requirement requirements.lock ||
    stop "pip could not install requirements.lock; its message stands above. \
Run the same command again to go on where it stopped."

printf '[3/3] attrlib itself\n'
"${pip[@]}" install --quiet --no-deps --no-build-isolation --editable .
state >"$stamp"
printf 'Set-up done.\n'
