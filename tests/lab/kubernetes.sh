#!/usr/bin/env bash
# A real one-node Kubernetes for the tests: etcd, API server, controller manager, scheduler, kubelet on the Docker
# Engine, and kube-proxy. Debian 12, root, a running Docker Engine.
#
#   tests/lab/kubernetes.sh          starts it and prints the path of its kubeconfig; a running one is left as it is
#   tests/lab/kubernetes.sh running  prints that path, or fails where none runs
#   tests/lab/kubernetes.sh build    only builds the programs
#   tests/lab/kubernetes.sh stop     ends it and removes its pods
#
# Where KUBECONFIG is set, that cluster is used: its path is printed and nothing is started or stopped.
#
# The programs are built once, in about five minutes on two cores, from Debian's own source package. Pods use images
# that the Docker Engine has. There is no cluster DNS, no metrics API and no ingress controller.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
version=1.20.2
revision=2 # of how it is built here
cache=${RUNBOOK_KUBERNETES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runbook-lab/kubernetes-$version-$revision}
state=${RUNBOOK_KUBERNETES_STATE:-/var/lib/runbook-lab/kubernetes}
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
apt=(apt-get -qq -y -o APT::Sandbox::User=root)

fail() {
  echo "kubernetes.sh: $*" >&2
  exit 1
}

runs() { # NAME: the process we started under this name is still that process
  local pid
  [[ -e $state/$1.pid ]] && pid=$(<"$state/$1.pid") && [[ -e /proc/$pid/exe ]] &&
    tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qF "$state"
}

stop() {
  local file name
  # The kubelet first, so that nothing starts the pods again.
  for name in kubelet proxy scheduler controller-manager apiserver etcd; do
    if runs "$name"; then kill "$(<"$state/$name.pid")"; fi
    for _ in $(seq 100); do runs "$name" || break; sleep 0.1; done
    if runs "$name"; then kill -9 "$(<"$state/$name.pid")"; fi
  done
  [[ -e $state ]] || return 0
  docker ps -aq --filter label=io.kubernetes.pod.uid | xargs -r docker rm -f >/dev/null
  awk -v below="$state/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r | while read -r file; do
    umount "$file"
  done
  rm -rf "$state"
  # What kube-proxy wrote would keep sending the NodePorts to pods that are gone.
  [[ -x $cache/kube-proxy ]] && "$cache/kube-proxy" --cleanup >/dev/null 2>&1 || true
}

sources() { # DIRECTORY: the machine's own package sources, as sources of source packages
  local directory=$1 mirror=""
  if [[ -e /etc/apt/sources.list.d/debian.sources ]]; then
    mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources)
  elif [[ -e /etc/apt/sources.list ]]; then
    mirror=$(awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ "://") {print $i; exit}}' /etc/apt/sources.list)
  fi
  [[ -n $mirror ]] || fail "no Debian mirror in this machine's apt sources"
  mkdir -p "$directory"/{lists/partial,cache/archives/partial}
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >"$directory/sources.list"
}

build() {
  [[ -x $cache/kube-proxy ]] && return
  local directory private
  directory=$(mktemp -d)
  sources "$directory"
  private=(-o "Dir::State::Lists=$directory/lists" -o "Dir::Etc::SourceList=$directory/sources.list"
    -o Dir::Etc::SourceParts=/dev/null -o "Dir::Cache=$directory/cache")
  "${apt[@]}" update
  "${apt[@]}" install --no-install-recommends golang-go golang-github-modern-go-reflect2-dev \
    rsync make dpkg-dev >/dev/null
  "${apt[@]}" "${private[@]}" update
  (mkdir "$directory/source" && cd "$directory/source" && "${apt[@]}" "${private[@]}" source kubernetes >/dev/null)
  (
    cd "$directory"/source/kubernetes-*/
    # The vendored reflect2 calls the runtime as Go did before 1.18. With a newer one it writes where it must not, and
    # after a while every object that is sent to the API server in JSON ends with a panic.
    rm vendor/github.com/modern-go/reflect2/*.go
    cp /usr/share/gocode/src/github.com/modern-go/reflect2/* vendor/github.com/modern-go/reflect2/
    mkdir -p .go/src/k8s.io && ln -s ../../.. .go/src/k8s.io/kubernetes
    HOME=$directory GOPATH=$PWD/.go GOCACHE=$directory/go CGO_ENABLED=0 KUBE_GIT_VERSION=v$version KUBE_GIT_MAJOR=1 \
      KUBE_GIT_MINOR=20 KUBE_GIT_TREE_STATE=clean \
      make -s WHAT="${programs[*]/#/cmd/}" GOLDFLAGS='-s -w' >"$directory/make.log" 2>&1 || {
      tail -20 "$directory/make.log" >&2
      fail "the build failed"
    }
    mkdir -p "$cache"
    install _output/local/bin/linux/amd64/kube* "$cache"
  )
  chmod -R u+w "$directory"
  rm -rf "$directory"
}

install_missing() { # PROGRAM:PACKAGE...
  local one missing=()
  for one in "$@"; do
    command -v "${one%%:*}" >/dev/null || missing+=("${one##*:}")
  done
  if ((${#missing[@]})); then
    "${apt[@]}" update >&2
    "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null
  fi
}

pause_image() {
  docker image inspect runbook-lab/pause:1 >/dev/null 2>&1 && return
  local directory
  directory=$(mktemp -d)
  cat >"$directory/pause.c" <<'C'
#include <signal.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
C
  gcc -static -Os -o "$directory/pause" "$directory/pause.c"
  tar -C "$directory" -c pause | docker import --change 'ENTRYPOINT ["/pause"]' - runbook-lab/pause:1 >/dev/null
  rm -rf "$directory"
}

certificate() { # NAME SUBJECT ALTERNATIVE-NAMES
  openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}

start() { # NAME COMMAND...
  local name=$1
  shift
  setsid "$@" >"$state/log/$name.log" 2>&1 </dev/null &
  echo $! >"$state/$name.pid"
}

await() { # WHAT COMMAND...
  local what=$1
  shift
  for _ in $(seq 240); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.5
  done
  tail -n 5 "$state"/log/*.log >&2
  fail "$what did not become ready in 2 minutes"
}

node_ready() {
  kubectl get node node1 2>/dev/null | grep -qw Ready
}

account_ready() {
  kubectl -n default get serviceaccount default
}

main() {
  local address name
  if [[ -n ${KUBECONFIG:-} ]]; then
    [[ ${1:-} == stop ]] || echo "$KUBECONFIG"
    return
  fi
  case ${1:-} in
    stop) stop; return ;;
    running)
      runs apiserver && runs kubelet && echo "$state/kubeconfig"
      return
      ;;
    "" | build) ;;
    *) fail "$1: only 'running', 'build' and 'stop' are known" ;;
  esac
  [[ $(id -u) == 0 ]] || fail "root is needed; set KUBECONFIG to use another cluster"
  docker info >/dev/null 2>&1 || fail "a running Docker Engine is needed"
  export KUBECONFIG=$state/kubeconfig
  if [[ ${1:-} != build ]] && runs apiserver && runs kubelet && node_ready; then
    echo "$KUBECONFIG"
    return
  fi
  build >&2
  [[ ${1:-} == build ]] && return
  install_missing etcd:etcd-server conntrack:conntrack ipset:ipset iptables:iptables socat:socat \
    kubectl:kubernetes-client openssl:openssl gcc:build-essential
  pause_image
  stop
  mkdir -p "$state"/{pki,log}
  cd "$state/pki"
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=runbook-lab 2>/dev/null
  certificate apiserver /CN=kube-apiserver IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc
  certificate admin /O=system:masters/CN=admin DNS:admin
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  address=$(ip -4 -o addr show docker0 | awk '{sub("/.*", "", $4); print $4}')
  (
    umask 077
    cat >"$KUBECONFIG" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:16443", certificate-authority: "$state/pki/ca.crt"}}]
users: [{name: admin, user: {client-certificate: "$state/pki/admin.crt", client-key: "$state/pki/admin.key"}}]
contexts: [{name: lab, context: {cluster: lab, user: admin}}]
current-context: lab
YAML
  )

  start etcd etcd --data-dir "$state/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:12379 \
    --advertise-client-urls http://127.0.0.1:12379 --listen-peer-urls http://127.0.0.1:12380
  start apiserver "$cache/kube-apiserver" --etcd-servers=http://127.0.0.1:12379 --bind-address=127.0.0.1 \
    --secure-port=16443 --advertise-address=127.0.0.1 --authorization-mode=RBAC --client-ca-file="$state/pki/ca.crt" \
    --tls-cert-file=apiserver.crt --tls-private-key-file=apiserver.key --service-cluster-ip-range=10.96.0.0/16 \
    --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
    --service-account-issuer=https://kubernetes.default.svc --kubelet-client-certificate=admin.crt \
    --kubelet-client-key=admin.key --kubelet-preferred-address-types=InternalIP
  await "the API server" kubectl get --raw /readyz
  start controller-manager "$cache/kube-controller-manager" --kubeconfig="$KUBECONFIG" --leader-elect=false \
    --service-account-private-key-file=sa.key --root-ca-file=ca.crt --use-service-account-credentials
  start scheduler "$cache/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false
  start kubelet "$cache/kubelet" --kubeconfig="$KUBECONFIG" --hostname-override=node1 --node-ip="$address" \
    --root-dir="$state/kubelet" --cert-dir="$state/kubelet-pki" --client-ca-file=ca.crt --anonymous-auth=false \
    --pod-infra-container-image=runbook-lab/pause:1 --cgroup-driver=cgroupfs --fail-swap-on=false --eviction-hard= \
    --enforce-node-allocatable= --read-only-port=0 --runtime-cgroups=/ --kubelet-cgroups=/ --resolv-conf=/etc/resolv.conf
  start proxy "$cache/kube-proxy" --kubeconfig="$KUBECONFIG" --hostname-override=node1 --proxy-mode=iptables \
    --cluster-cidr=172.17.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
    --conntrack-tcp-timeout-close-wait=0
  await "the node" node_ready
  await "the service account" account_ready
  for name in etcd apiserver controller-manager scheduler kubelet proxy; do
    runs "$name" || fail "$name ended: $(tail -n 3 "$state/log/$name.log")"
  done
  echo "$KUBECONFIG"
}

main "$@"
