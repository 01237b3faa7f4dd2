#!/bin/sh
# Some tests need programs that pip does not bring. Install them where that is ours to do; never fail, since those tests
# skip themselves.
ensure() { # what, packages, names of the executable
    what=$1 packages=$2
    shift 2
    for name in "$@"; do
        command -v "$name" >/dev/null 2>&1 && return
    done
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        log=.venv/$what.log
        echo "$what: installing (apt-get; all it says is in $log)"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086
        { apt-get update && apt-get install -y --no-install-recommends $packages; } >"$log" 2>&1 </dev/null && return
        echo "$what: apt-get could not install it; tests that need it are skipped"
    else
        echo "$what: not found, and only root can install it; tests that need it are skipped"
    fi
}

ensure chromium chromium chromium chromium-browser google-chrome google-chrome-stable
ensure postgresql postgresql initdb /usr/lib/postgresql/*/bin/initdb
ensure cp2k 'cp2k libopenblas0-pthread' cp2k.psmp cp2k.popt cp2k.ssmp cp2k.sopt
ensure slurm 'slurm-wlm munge' sbatch
ensure rabbitmq rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server
ensure sshd openssh-server /usr/sbin/sshd
exit 0
