#!/bin/sh
# Install what tests/slurm needs (Slurm, munge, MariaDB) on Debian or Ubuntu. Installs only what is missing
# and starts no service: each test cluster brings up its own daemons.
set -eu

PACKAGES="munge slurmctld slurmd slurmdbd slurm-client mariadb-server"

fail() {
    echo "install_slurm.sh: $1" >&2
    exit 1
}

missing=""
for package in $PACKAGES; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "Slurm is installed: $(PATH=$PATH:/usr/sbin slurmctld -V)"
    exit 0
fi

command -v apt-get >/dev/null || fail "no apt-get here. Install with this system's own package manager what gives
munged, mariadbd, mariadb-install-db, slurmctld, slurmd, slurmdbd, srun, sbatch and sacct, then run the tests."
[ "$(id -u)" = 0 ] || fail "missing:$missing. This needs root: sudo $0"

# Debian asks this file before it starts a service: 101 is "no" (invoke-rc.d). Taken away again at the end.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y --no-install-recommends $missing
}
install || { apt-get update && install; } || fail "apt-get could not install:$missing (its reason stands above)"
echo "installed:$missing"
