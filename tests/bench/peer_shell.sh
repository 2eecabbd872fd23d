#!/usr/bin/env bash
# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The shell peer: what playbooks/deploy.yml and rollback.yml do to targets and router, without plan and records.
# Usage: peer_shell.sh site.sh deploy|rollback VERSION
set -euo pipefail

# shellcheck source=/dev/null
. "$1"
verb=$2 version=$3

answer() { curl -fsS -m 5 "$1/version" 2>/dev/null | jq -r .version || true; }

healthy() { # socket slot port; supervisord calls a process RUNNING only after startsecs
  "$SUPERVISORCTL" -s "unix://$1" status "demo-$2" | grep -q RUNNING &&
    [ "$(curl -fsS -m 5 "http://127.0.0.1:$3/health" 2>/dev/null | jq -r .status)" = ok ] &&
    [ "$(answer "http://127.0.0.1:$3")" = "$version" ]
}

until_true() { # tries pause what command...
  local tries=$1 pause=$2 what=$3
  shift 3
  for ((try = 0; try < tries; try++)); do
    if "$@"; then return 0; fi
    sleep "$pause"
  done
  echo "$what" >&2
  return 1
}

stage() { # slot of the target in $name $home $socket $port
  local slot=$1 release=$home/releases/$version archive=$ARTIFACTS/demo-$version.tar.gz
  mkdir -p "$release/app"
  cp "$archive" "$release/app.tar.gz"
  echo "$(cut -d' ' -f1 "$archive.sha256")  $release/app.tar.gz" | sha256sum -c --quiet
  tar -xzf "$release/app.tar.gz" -C "$release/app"
  (umask 077 && printf 'export DATABASE_URL=%q\nexport REDIS_URL=%q\nexport PYTHONUNBUFFERED=1\n' \
    "$DATABASE_URL" "$REDIS_URL" >"$release/env")
  cat >"$release/run" <<END
#!/bin/sh
set -eu
. $release/env
export RELEASE=$version
exec $PYTHON server.py --port "\$PORT"
END
  chmod 755 "$release/run"
  (umask 077 && cat >"$home/supervisor.d/demo-$slot.conf" <<END
[program:demo-$slot]
command=/bin/sh $release/run
directory=$release/app
environment=PORT="$port",SLOT="$slot"
autostart=true
autorestart=true
startsecs=1
stopwaitsecs=5
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=$home/$slot.log
END
  )
  "$SUPERVISORCTL" -s "unix://$socket" update
}

on_target() { # slot name home socket blue green
  local slot=$1 name=$2 home=$3 socket=$4 port=$5 tries=3
  if [ "$slot" = green ]; then port=$6; fi
  if [ "$verb" = deploy ]; then
    stage "$slot"
    tries=75
  fi
  until_true "$tries" 0.2 "$slot of $name does not get healthy" healthy "$socket" "$slot" "$port"
}

routed() {
  for _ in 1 2 3 4 5; do [ "$(answer "$FRONT")" = "$version" ] || return 1; done
}

shift_to() { # slot
  {
    echo "upstream demo_backend {"
    while read -r _ _ _ blue green; do
      if [ "$1" = blue ]; then
        printf '    server 127.0.0.1:%s;\n    server 127.0.0.1:%s down;\n' "$blue" "$green"
      else
        printf '    server 127.0.0.1:%s;\n    server 127.0.0.1:%s down;\n' "$green" "$blue"
      fi
    done <"$TARGETS"
    printf '    keepalive 32;\n}\n'
  } >"$INCLUDE.new"
  mv "$INCLUDE.new" "$INCLUDE"
  "${NGINX[@]}" -t
  "${NGINX[@]}" -s reload
  until_true 300 0.05 "the router does not answer with $version" routed
}

read -r _ _ _ blue green <"$TARGETS"
live='' idle=blue
if grep -q ":$blue;" "$INCLUDE"; then live=blue idle=green; elif grep -q ":$green;" "$INCLUDE"; then live=green; fi

if [ -n "$live" ]; then
  different=0
  while read -r _ _ _ blue green; do
    if [ "$live" = blue ]; then port=$blue; else port=$green; fi
    [ "$(answer "http://127.0.0.1:$port")" = "$version" ] || different=1
  done <"$TARGETS"
  if [ "$different" = 0 ]; then
    echo "nothing to do"
    exit 0
  fi
fi

jobs=()
while read -r name home socket blue green; do
  on_target "$idle" "$name" "$home" "$socket" "$blue" "$green" &
  jobs+=("$!")
done <"$TARGETS"
for job in "${jobs[@]}"; do wait "$job"; done # set -e ends it all when one failed
shift_to "$idle"
if [ "$verb" = deploy ]; then # a router hides a target that ended once it had traffic
  while read -r name _ socket blue green; do
    if [ "$idle" = blue ]; then port=$blue; else port=$green; fi
    until_true 3 0.2 "$idle of $name is no longer healthy" healthy "$socket" "$idle" "$port"
  done <"$TARGETS"
fi
