#!/bin/bash
# A machine with Apptainer and Slurm in one folder, for hosts that have neither.
#
#   root.sh make FOLDER                         Debian unstable in FOLDER/root, one minute, 500 MB
#   root.sh run FOLDER [OPTIONS] -- COMMAND...  run a command in it, as an ordinary user
#       --bind SOURCE[:TARGET]   a folder of this machine, writable; may be repeated
#       --as-root                as root instead of the user
#       --hostname NAME          another host name (a host of a cluster in a box)
#       --netns NAME             in a network namespace made with `ip netns add`
#   root.sh remove FOLDER                       take it away again
#
# Needs root and mmdebstrap. All of it lies under FOLDER. A command runs in a mount and a PID
# namespace of its own: its mounts and every process that it started end with it. Packages come
# from the mirror that this machine's own apt sources name.
set -euo pipefail

USER_NAME=lockstep
USER_ID=1000
PACKAGES=(
    slurm-wlm munge iproute2 procps mount
    apptainer squashfuse fuse2fs fakeroot uidmap squashfs-tools
    mmdebstrap debian-archive-keyring ca-certificates
    python3 python3-venv git make
    gcc libc6-dev python3-dev # one of the packages Snakemake needs has no wheel for this Python
)

die() {
    echo "root.sh: $*" >&2
    exit 2
}

# The first archive that apt knows, in either of its two formats.
mirror() {
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
        awk '$1 == "URIs:" { print $2; exit }
             $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; exit } }'
}

make_root() {
    local folder=$1 root=$1/root
    [[ -e $root/etc/ready ]] && return
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt-get install mmdebstrap"
    [[ -n $(mirror) ]] || die "no archive found in the apt sources of this machine"
    remove_root "$folder"
    mkdir -p "$folder"
    # The mirror may lag behind the date at which its list of unstable expires.
    mmdebstrap --quiet --mode=root --variant=apt \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        --include="$(IFS=, && echo "${PACKAGES[*]}")" unstable "$root" "$(mirror)"
    useradd --root "$root" --uid $USER_ID --create-home --shell /bin/bash $USER_NAME
    printf '%s:100000:65536\n' $USER_NAME | tee "$root/etc/subuid" >"$root/etc/subgid"
    # Behind a proxy that inspects TLS, this machine's certificates are the ones that count.
    if [[ -s /etc/ssl/certs/ca-certificates.crt ]]; then
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    fi
    touch "$root/etc/ready"
}

remove_root() {
    local folder=$1
    [[ -e $folder ]] || return 0
    # A mount that survived would be emptied along with the folder.
    grep -q " $(realpath "$folder")/" /proc/self/mountinfo && die "$folder: still mounted below"
    rm -rf --one-file-system "$folder/root"
    rmdir --ignore-fail-on-non-empty "$folder"
}

run_in_root() {
    local folder hostname='' netns=() binds=() user=$USER_NAME
    folder=$(realpath "$1")
    shift
    [[ -e $folder/root/etc/ready ]] || die "$folder: not there yet; root.sh make $folder"
    while [[ $# -gt 0 && $1 != -- ]]; do
        case $1 in
            --bind) binds+=("$2") && shift 2 ;;
            --hostname) hostname=$2 && shift 2 ;;
            --netns) netns=(ip netns exec "$2") && shift 2 ;;
            --as-root) user=root && shift ;;
            *) die "unknown option $1" ;;
        esac
    done
    [[ ${1:-} == -- && $# -gt 1 ]] || die "no command; it follows --"
    shift
    exec "${netns[@]}" unshare --mount --uts --pid --fork --kill-child \
        "$0" inside "$folder/root" "$user" "$hostname" "${#binds[@]}" "${binds[@]}" "$@"
}

# In the new namespaces. pivot_root and not chroot: user namespaces are refused inside a chroot.
inside() {
    local root=$1 user=$2 hostname=$3 count=$4 home=/root bind device
    shift 4
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount -t tmpfs -o mode=755 devices "$root/dev"
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
    for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229; do
        IFS=: read -r name major minor <<<"$device"
        mknod -m 0666 "$root/dev/$name" c "$major" "$minor"
    done
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin" && ln -s fd/1 "$root/dev/stdout" && ln -s fd/2 "$root/dev/stderr"
    for ((; count > 0; count--)); do
        bind=$1 && shift
        mkdir -p "$root/${bind##*:}"
        mount --rbind "${bind%%:*}" "$root/${bind##*:}"
    done
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    [[ -n $hostname ]] && hostname "$hostname"
    mkdir -p "$root/.before"
    cd "$root"
    pivot_root . .before
    cd /
    umount --lazy /.before
    [[ $user != root ]] && home=/home/$user
    cd "$home"
    # A change of user takes away the signal that ends this with whoever started it.
    exec setpriv --reuid "$user" --regid "$user" --init-groups --pdeathsig KILL env -i \
        HOME="$home" USER="$user" LANG=C.UTF-8 TERM="${TERM:-dumb}" \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$@"
}

[[ $# -ge 2 ]] || { sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 2; }
command=$1
shift
case $command in
    make) make_root "$@" ;;
    run) run_in_root "$@" ;;
    remove) remove_root "$@" ;;
    inside) inside "$@" ;;
    *) die "unknown command $command" ;;
esac
