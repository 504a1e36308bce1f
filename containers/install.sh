# The steps that all three definitions share; sourced in %post. In /mnt: debian.txt and
# requirements.txt (what to install), and if this site needs them sources.list, pip.conf, ca.crt.
# /tmp and /var/tmp are not the image's: leave them alone.
# shellcheck shell=sh
set -eu +x
export DEBIAN_FRONTEND=noninteractive PYTHONHASHSEED=0
umask 022

# Debian's packages in the versions of the lock, which names all of them.
debian_packages() {
    dpkg-query -W -f '${Package}=${Version}\n' | sort >/tmp/present
    if ! cmp -s /mnt/debian.txt /tmp/present; then
        if [ -s /mnt/sources.list ]; then
            rm -f /etc/apt/sources.list.d/*
            cp /mnt/sources.list /etc/apt/sources.list
        fi
        [ ! -s /mnt/ca.crt ] || echo 'Acquire::https::CAInfo "/mnt/ca.crt";' >/etc/apt/apt.conf.d/00ca
        # One user is mapped where a site has no subordinate ids: apt must not change to another.
        set -- -qq -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 -o Acquire::Retries=3
        apt-get "$@" update
        # shellcheck disable=SC2046
        apt-get "$@" install --yes --no-install-recommends --allow-downgrades $(cat /mnt/debian.txt) ||
            { echo "lockstep: debian lock: the mirror does not have these versions" >&2; exit 1; }
        dpkg-query -W -f '${Package}=${Version}\n' | sort >/tmp/present
        diff /mnt/debian.txt /tmp/present >&2 ||
            { echo "lockstep: debian lock: other packages were installed" >&2; exit 1; }
    fi
    cp /mnt/debian.txt /opt/debian.txt
}

# Wheels only, each checked against the lock; nothing is compiled on installation.
wheels() {
    [ ! -s /mnt/pip.conf ] || export PIP_CONFIG_FILE=/mnt/pip.conf
    [ ! -s /mnt/ca.crt ] || export PIP_CERT=/mnt/ca.crt
    set -- /usr/share/python-wheels/pip-*.whl
    python3 "$1/pip" --python /opt/lockstep/bin/python install \
        --require-hashes --only-binary :all: --no-deps --no-compile --no-cache-dir \
        --root-user-action ignore --disable-pip-version-check --progress-bar off \
        --requirement /mnt/requirements.txt
    cp /mnt/requirements.txt /opt/lockstep/requirements.txt
}

# Byte code once and for all, valid whatever the files' times are; then nothing that a second
# build would leave differently.
finish() {
    find / -xdev -name __pycache__ -prune -exec rm -rf {} +
    python3 /mnt/bytecode.py /usr/lib/python3 /usr/lib/python3.[0-9]* /opt/lockstep/lib
    apt-get clean
    [ ! -s /mnt/sources.list ] || : >/etc/apt/sources.list
    rm -rf /etc/apt/apt.conf.d/00ca /var/lib/apt/lists/* /var/cache/* /var/log/* /root/.cache \
        /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian \
        /etc/machine-id /etc/hostname /etc/*- /var/lib/dpkg/*-old /var/lib/systemd
    find /run -xdev -mindepth 1 -delete
}
