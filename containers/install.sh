# The steps that all three definitions share; sourced in %post. In /mnt: debian.txt and
# requirements.txt (what to install), and if this site needs them sources.list, pip.conf, ca.crt.
# /tmp and /var/tmp are not the image's: leave them alone.
# shellcheck shell=sh
set -eu +x
export DEBIAN_FRONTEND=noninteractive PYTHONHASHSEED=0 LC_ALL=C
export PYTHONDONTWRITEBYTECODE=1
umask 022

# Debian's packages in the versions of the lock, which names all of them.
debian_packages() {
    grep -v '^#' /mnt/debian.txt >/tmp/locked
    present >/tmp/present
    if ! cmp -s /tmp/locked /tmp/present; then
        if [ -s /mnt/sources.list ]; then
            rm -f /etc/apt/sources.list.d/*
            cp /mnt/sources.list /etc/apt/sources.list
        fi
        [ ! -s /mnt/ca.crt ] || echo 'Acquire::https::CAInfo "/mnt/ca.crt";' >/etc/apt/apt.conf.d/00ca
        # One user is mapped where a site has no subordinate ids: apt must not change to another.
        set -- -qq -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
            -o Acquire::Languages=none -o APT::Update::Error-Mode=any
        apt-get "$@" update || fail "the mirror's lists of packages could not be fetched"
        set -- "$@" install --yes --purge --no-install-recommends --allow-downgrades
        # Tried first without a download: then what fails is not the network.
        # shellcheck disable=SC2046
        apt-get --simulate "$@" $(cat /tmp/locked) >/dev/null ||
            fail "the mirror does not have the versions of the lock ($(head -n 1 /mnt/debian.txt))"
        # An image of a registry may hold more than the lock names, also what Debian protects.
        # shellcheck disable=SC2046
        apt-get "$@" --allow-remove-essential $(cat /tmp/locked) $(surplus) ||
            fail "apt-get could not install them"
        present | diff /tmp/locked - >&2 || fail "other packages are here than in the lock"
    fi
    cp /mnt/debian.txt /opt/debian.txt
}

present() {
    dpkg-query -W -f '${Package}=${Version}\n' | sort
}

# Packages that the lock does not name, as apt-get wants those that it shall remove.
surplus() {
    cut -d= -f1 /tmp/locked | sort >/tmp/names
    cut -d= -f1 /tmp/present | sort | comm -13 /tmp/names - | sed 's/$/-/'
}

# The first words are what workflow/lockstep/images/build.py finds the cause by.
fail() {
    echo "lockstep: Debian packages: $1" >&2
    exit 1
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

# Debian's own byte code notes the times of its source files.
forget_bytecode() {
    find / -xdev -name __pycache__ -prune -exec rm -rf {} +
}

# Byte code once and for all, valid whatever the files' times are; then nothing that a second
# build would leave differently.
finish() {
    python3 /mnt/bytecode.py /usr/lib/python3 /usr/lib/python3.[0-9]* /opt/lockstep/lib
    apt-get clean
    [ ! -s /mnt/sources.list ] || : >/etc/apt/sources.list
    rm -rf /etc/apt/apt.conf.d/00ca /var/lib/apt/lists/* /var/cache/* /var/log/* /root/.cache \
        /usr/share/doc /usr/share/doc-base /usr/share/man /usr/share/info /usr/share/locale \
        /usr/share/lintian /opt/lockstep/share/doc /opt/lockstep/share/man \
        /etc/machine-id /etc/hostname /etc/*- /var/lib/dpkg/*-old /var/lib/systemd
    rm -f /etc/shadow /etc/gshadow # the day of the build stands in them; nobody logs in
    find /run -xdev -mindepth 1 -delete
}
