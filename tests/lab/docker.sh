#!/usr/bin/env bash
# Gives a Debian 12 machine a Docker Engine with Compose v2, as root. Safe to run again; an engine that already answers
# (here or at DOCKER_HOST) is used as it is. Packages come from where the machine's own apt takes them.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# What Debian 12 does not have in the right version comes as a single package out of Debian 13: it is unpacked, not
# installed. $1 release, $2 package, $3 directory to unpack into.
unpack() {
    local place mirror options
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | awk 'NR == 1')
    [ -n "$mirror" ] || { echo "apt-get knows no source of bookworm: run apt-get update"; return 1; }
    place=$(mktemp -d)
    mkdir -p "$place/lists/partial" "$place/cache/archives/partial" "$place/deb"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$place/sources.list"
    options=(-o "Dir::State::Lists=$place/lists" -o "Dir::Etc::SourceList=$place/sources.list" -o "Dir::Cache=$place/cache"
        -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update -qq
    (cd "$place/deb" && apt-get "${options[@]}" download -qq "$2")
    dpkg-deb --extract "$place"/deb/*.deb "$3"
    rm -rf "$place"
}

if ! command -v docker >/dev/null || ! command -v mmdebstrap >/dev/null; then
    apt-get update -q
    apt-get install -q -y --no-install-recommends docker.io iptables mmdebstrap
fi
if ! docker compose version >/dev/null 2>&1; then
    unpacked=$(mktemp -d)
    unpack trixie docker-compose "$unpacked"
    install -D "$unpacked/usr/libexec/docker/cli-plugins/docker-compose" /usr/local/lib/docker/cli-plugins/docker-compose
    rm -rf "$unpacked"
fi
if ! command -v docker-registry >/dev/null; then
    unpacked=$(mktemp -d)
    unpack bookworm docker-registry "$unpacked" # unpacked only: the package would start it on a public port
    install -D "$unpacked/usr/bin/docker-registry" /usr/local/bin/docker-registry
    rm -rf "$unpacked"
fi
if ! docker info >/dev/null 2>&1; then
    # In a container without CAP_SYS_RESOURCE a negative oom_score_adj can't be set, and runc gives up on it.
    wrapper=/usr/local/sbin/runc-any-oom-score
    { echo '#!/usr/bin/env python3'; cat "$(dirname "$0")/runc_any_oom_score.py"; } >"$wrapper"
    chmod +x "$wrapper"
    pgrep -x dockerd >/dev/null || rm -f /var/run/docker.pid # of an engine that was killed: its number may be another's now
    setsid dockerd --add-runtime "any-oom-score=$wrapper" --default-runtime any-oom-score \
        </dev/null >/var/log/dockerd.log 2>&1 &
    for _ in $(seq 120); do docker info >/dev/null 2>&1 && break || sleep 0.5; done
    docker info >/dev/null 2>&1 || { tail -n 20 /var/log/dockerd.log; exit 1; }
fi
docker version --format 'Docker Engine {{.Server.Version}}'
docker compose version
