#!/bin/bash
# Writes containers/locks/*.txt from the *.in beside them: `lock.sh [python|debian]`, both if
# nothing is said. Needs uv for Python's packages, mmdebstrap for Debian's.
set -euo pipefail
cd "$(dirname "$0")/locks"

SUITE=trixie
PYTHON=3.13 # of that suite
PLATFORM=x86_64-manylinux_2_40

python_lock() { # OUTPUT INPUT...
    local output=$1
    shift
    uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate \
        --only-binary :all: --python-version $PYTHON --python-platform $PLATFORM \
        --upgrade --output-file "$output" "$@"
}

python_locks() {
    python_lock base.txt base.in
    # One pair of locks a CUDA generation; what all images share has one version.
    for lock in cuda12-torch cuda12-jax cuda13-torch cuda13-jax; do
        python_lock $lock.txt --constraint base.txt base.in $lock.in
    done
}

mirror() { # as a build finds it
    PYTHONPATH=../../workflow python3 -c 'from lockstep.images.mirror import host_mirror; print(host_mirror())'
}

debian_lock() { # OUTPUT INPUT...
    local output=$1 packages folder
    shift
    packages=$(grep -hv '^#' "$@" | paste -sd,)
    folder=$(mktemp -d)
    # copy-out, since a hook runs as another user id, who may not write where we do. The state of
    # the archive is for who looks for these versions later.
    mmdebstrap --quiet --variant=apt --include="$packages" --format=null \
        --customize-hook='chroot "$1" dpkg-query -W -f "\${Package}=\${Version}\n" >"$1/lock"' \
        --customize-hook='sed -n "s/^Date: //p" "$1"/var/lib/apt/lists/*_InRelease >"$1/state"' \
        --customize-hook="copy-out /lock /state $folder" \
        $SUITE - "${MIRROR:-$(mirror)}"
    LC_ALL=C sort "$folder/lock" >"$folder/sorted"
    # If these are the same, so is the file: it is part of the images' identity.
    if ! grep -v '^#' "$output" 2>/dev/null | cmp -s - "$folder/sorted"; then
        { echo "# $SUITE of $(date --utc --date "$(cat "$folder/state")" +%FT%TZ)" && cat "$folder/sorted"; } >"$output"
    fi
    rm -r "$folder"
}

debian_locks() {
    debian_lock debian-base.txt debian-base.in
    debian_lock debian-torch.txt debian-base.in debian-torch.in
}

case ${1:-all} in
    python) python_locks ;;
    debian) debian_locks ;;
    all) python_locks && debian_locks ;;
    *) sed -n '2,3s/^# //p' "$0" >&2 && exit 2 ;;
esac
