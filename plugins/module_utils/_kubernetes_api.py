# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One namespace of one Kubernetes cluster, spoken to in JSON. Private: may change at any time.

``kubectl proxy`` does what kubeconfigs are made of (contexts, certificates, plugins that fetch tokens); it listens on
a socket that only this user can reach, for as long as one module runs. What goes over it is plain HTTP: every answer
of the API, and of a pod behind it, comes with its own status and words. The standard library is enough for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.signalbox.runbook.plugins.module_utils import _command
from ansible_collections.signalbox.runbook.plugins.module_utils._diagnosis import Answer, Failure
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import BODY_LIMIT, Reply, Request
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import closest

Object = dict[str, Any]

RETRIES = 3
PROXY_SECONDS = 15.0
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PATHS = {
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Endpoints": "/api/v1/namespaces/{namespace}/endpoints",
    "Event": "/api/v1/namespaces/{namespace}/events",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "EndpointSlice": "/apis/discovery.k8s.io/{version}/namespaces/{namespace}/endpointslices",
    "HorizontalPodAutoscaler": "/apis/autoscaling/{version}/namespaces/{namespace}/horizontalpodautoscalers",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "Ingress": "/apis/networking.k8s.io/{version}/namespaces/{namespace}/ingresses",
    "PodDisruptionBudget": "/apis/policy/{version}/namespaces/{namespace}/poddisruptionbudgets",
}
GROUPS = {
    "EndpointSlice": "discovery.k8s.io",
    "HorizontalPodAutoscaler": "autoscaling",
    "Ingress": "networking.k8s.io",
    "PodDisruptionBudget": "policy",
}
STABLE = {"Deployment": "apps/v1", "Lease": "coordination.k8s.io/v1"}  # the same version everywhere
VERSIONS = ("v1", "v1beta1", "v2", "v2beta2")  # v1 first: of what we use of an autoscaler it has all, everywhere


# What every module takes that speaks to a namespace; documented by the fragment cluster.
OPTIONS: dict[str, Any] = {
    "context": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "expected_server": {"type": "str", "default": ""},
    "kubeconfig": {"type": "path"},
    "kubectl": {"type": "list", "elements": "str", "default": ["kubectl"]},
    "request_seconds": {"type": "float", "default": 10},
    "application": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},
}


class Reached(NamedTuple):
    """An HTTP answer of the API server, or of what it hands requests on to."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# call(method, path with query, body, headers, timeout in seconds) -> answer; OSError when there is none
Call = Callable[[str, str, Optional[bytes], Mapping[str, str], float], Reached]


class ConflictError(RunbookError):
    """Somebody else changed the object since it was read, or made it meanwhile."""


class Cluster(NamedTuple):
    """Where a context of a kubeconfig leads to."""

    context: str
    server: str


def choose(config: Mapping[str, Any], context: str, expected_server: str = "") -> Cluster:
    """The cluster of ``context`` as `kubectl config view` has it. The current context never counts."""
    contexts = {str(one["name"]): one.get("context") or {} for one in config.get("contexts") or ()}
    clusters = {str(one["name"]): one.get("cluster") or {} for one in config.get("clusters") or ()}
    if not context:
        raise RunbookError(f"context: is missing; name one of the kubeconfig: {', '.join(sorted(contexts)) or 'none'}")
    if context not in contexts:
        known = ", ".join(sorted(contexts)) or "none"
        raise RunbookError(
            f"context: the kubeconfig has no context {context!r}{closest(context, contexts)}; it has {known}"
        )
    server = str(clusters.get(str(contexts[context].get("cluster")), {}).get("server") or "")
    if not server:
        raise RunbookError(f"context: {context} names no cluster with a server in the kubeconfig")
    if expected_server and server.rstrip("/") != expected_server.rstrip("/"):
        raise RunbookError(
            f"expected_server: context {context} leads to {server}, not to {expected_server}; "
            "correct the context or the expected server"
        )
    return Cluster(context, server)


# -- kubectl ----------------------------------------------------------------------------------------------------


def _end_with_parent() -> None:
    """In the child: the kernel ends it when the module is gone, however that ended."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _kubectl(words: Sequence[str], seconds: float) -> str:
    code, out, err = _command.run(
        words,
        seconds,
        lambda error: _absent(words[0], error),
        f"kubectl: {words[0]} did not end within {seconds:g} s",
    )
    if code:
        raise RunbookError(f"kubeconfig: kubectl can't read it: {err.strip() or 'no message'}")
    return out


def _absent(program: str, error: OSError) -> str:
    return (
        f"kubectl: {program!r} cannot be run on this host ({error.strerror}); install the Kubernetes client, or give "
        "its path"
    )


@contextlib.contextmanager
def connected(
    context: str,
    namespace: str,
    kubeconfig: Optional[str] = None,
    expected_server: str = "",
    kubectl: Sequence[str] = ("kubectl",),
    request_seconds: float = 10.0,
) -> Iterator[Api]:
    """The namespace of the cluster that ``context`` leads to."""
    base = [*kubectl, *(["--kubeconfig", kubeconfig] if kubeconfig else [])]
    if kubeconfig and not os.access(kubeconfig, os.R_OK):
        raise RunbookError(f"kubeconfig: {kubeconfig} is no file that this user can read")
    config = json.loads(_kubectl([*base, "config", "view", "-o", "json"], PROXY_SECONDS))
    cluster = choose(config, context, expected_server)
    with _short_directory() as directory:
        path = os.path.join(directory, "api")
        with open(os.path.join(directory, "log"), "w+b") as log:
            process = subprocess.Popen(
                [*base, "--context", context, "proxy", f"--unix-socket={path}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )
            try:
                _await_socket(process, path, log)
                api = Api(_caller(path), namespace, cluster, request_seconds)
                api.check_namespace()
                yield api
            finally:
                process.kill()
                process.wait()


def connected_by(given: Mapping[str, Any]) -> contextlib.AbstractContextManager[Api]:
    """The namespace that the OPTIONS of a module name."""
    words = ("context", "namespace", "kubeconfig", "expected_server", "kubectl", "request_seconds")
    return connected(*(given[word] for word in words))


@contextlib.contextmanager
def _short_directory() -> Iterator[str]:
    """Only ours to enter; a socket's path has at most 107 bytes, and TMPDIR may be long."""
    parent = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="runbook-", dir=parent if len(parent) < 70 else "/tmp") as directory:
        yield directory


def _await_socket(process: subprocess.Popen[bytes], path: str, log: Any) -> None:
    deadline = time.monotonic() + PROXY_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            return
        if process.poll() is not None or time.monotonic() >= deadline:
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
            raise RunbookError(f"kubectl: kubectl proxy did not start: {said[-1] if said else 'no message'}")
        time.sleep(0.01)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _caller(socket_path: str) -> Call:
    def call(method: str, path: str, body: Optional[bytes], headers: Mapping[str, str], seconds: float) -> Reached:
        connection = _UnixConnection(socket_path, seconds)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return Reached(answer.status, dict(answer.getheaders()), answer.read())
        except http.client.HTTPException as error:
            raise OSError(f"no proper HTTP answer ({error!r})") from error
        finally:
            connection.close()

    return call


# -- the API ----------------------------------------------------------------------------------------------------


class Api:
    """Objects of one namespace. What the API refuses is one sentence with the API's own words in it."""

    def __init__(
        self,
        call: Call,
        namespace: str,
        cluster: Cluster,
        request_seconds: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not namespace:
            raise RunbookError("namespace: is missing; name the namespace of the application")
        self.call = call
        self.namespace = namespace
        self.cluster = cluster
        self.request_seconds = request_seconds
        self.answered_at: Optional[float] = None  # by the clock of the API server, in whole seconds
        self._sleep = sleep
        self._versions: dict[str, str] = {}

    def get(self, kind: str, name: str) -> Optional[Object]:
        status, document = self._ask("GET", kind, name)
        return None if status == 404 else document

    def find(self, kind: str, labels: Mapping[str, str], fields: str = "", metadata_only: bool = False) -> list[Object]:
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in sorted(labels.items()))}
        if fields:
            query["fieldSelector"] = fields
        headers = {"Accept": METADATA_ONLY} if metadata_only else {}
        _status, document = self._ask("GET", kind, "", query, headers=headers)
        items = document.get("items") or []
        return [dict(one) for one in items]

    def create(self, obj: Mapping[str, Any], dry_run: bool = False) -> Object:
        return self._ask("POST", obj["kind"], "", _dry(dry_run), self._versioned(obj))[1]

    def replace(self, obj: Mapping[str, Any], dry_run: bool = False) -> Object:
        """Only when it still is what it was when it was read: its resourceVersion is in ``obj``."""
        return self._ask("PUT", obj["kind"], obj["metadata"]["name"], _dry(dry_run), self._versioned(obj))[1]

    def delete(self, kind: str, obj: Mapping[str, Any]) -> None:
        """This very object, not another one of its name. That it is gone already is fine."""
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": {"uid": obj["metadata"]["uid"]},
        }
        self._ask("DELETE", kind, obj["metadata"]["name"], {}, options)

    def log(self, pod: str, container: str, lines: int, previous: bool = False) -> list[str]:
        query = {"container": container, "tailLines": str(lines), **({"previous": "true"} if previous else {})}
        path = f"{self._path('Pod', pod)}/log?{urlencode(query)}"
        try:
            answer = self.call("GET", path, None, {}, self.request_seconds)
        except OSError:
            return []
        return answer.body.decode("utf-8", "replace").splitlines()[-lines:] if answer.status == 200 else []

    def server_version(self) -> tuple[int, int]:
        _status, document = self._request("GET", "/version", "read the version", {})
        digits = ["".join(c for c in str(document.get(key) or "0") if c.isdigit()) for key in ("major", "minor")]
        return int(digits[0] or 0), int(digits[1] or 0)

    def check_namespace(self) -> None:
        """That it exists, as far as this user may know."""
        path = f"/api/v1/namespaces/{quote(self.namespace)}"
        try:
            status, document = self._request("GET", path, f"read the namespace {self.namespace}", {})
        except ForbiddenError:
            return
        if status == 404:
            raise RunbookError(
                f"namespace: {self.namespace} does not exist in {self.cluster.server}; correct it, or make it first: "
                f"kubectl --context {self.cluster.context} create namespace {self.namespace}"
            )
        if (document.get("status") or {}).get("phase") == "Terminating":
            raise RunbookError(f"namespace: {self.namespace} is being deleted, so nothing can be put into it")

    def fetch(self, request: Request, kind: str = "Pod") -> Reply:
        """Ask a pod, or one of those of a Service, through the API server: works wherever the API is reached. The URL
        is ``http://NAME:PORT/path``."""
        parts = urlsplit(request.url)
        scheme = "https:" if parts.scheme == "https" else ""
        path = f"{self._path(kind, f'{scheme}{parts.hostname}:{parts.port}')}/proxy{parts.path or '/'}"
        path += f"?{parts.query}" if parts.query else ""
        started = time.monotonic()
        try:
            answer = self.call(request.method, path, None, request.headers, request.timeout_seconds)
        except socket.timeout:
            return Failure("timeout", f"no complete answer within {request.timeout_seconds:.3g} s")
        except OSError as error:
            return Failure("closed", f"the API server gave no answer ({error})")
        text = answer.body[:BODY_LIMIT].decode("utf-8", "replace")
        status = _status_object(answer)
        if status is not None:  # the words of the API server, not of the pod
            message = str(status.get("message") or status.get("reason") or "no message")
            return Failure("refused" if answer.status != 403 else "forbidden", message)
        if answer.status == 502 and "text/plain" in str(answer.headers.get("Content-Type", "")):
            return Failure("closed", f"the API server could not be asked: {text.strip()[:200]}")
        return Answer(answer.status, answer.headers, text, round((time.monotonic() - started) * 1000))

    # -- one request ----------------------------------------------------------------------------------------------

    def _versioned(self, obj: Mapping[str, Any]) -> Object:
        kind = obj["kind"]
        if kind in GROUPS:
            return {**obj, "apiVersion": f"{GROUPS[kind]}/{self.version_of(kind)}"}
        return {"apiVersion": STABLE.get(kind, "v1"), **obj}

    def version_of(self, kind: str) -> str:
        """The version of a kind that we know best and the cluster serves; empty when it serves none."""
        group = GROUPS[kind]
        if group not in self._versions:
            _status, document = self._request("GET", f"/apis/{group}", f"read the API group {group}", {})
            served = [one["version"] for one in document.get("versions") or ()]
            # A group's version may lack the kind (policy/v1 of a cluster that only has evictions there).
            for version in [v for v in VERSIONS if v in served]:
                _status, listed = self._request("GET", f"/apis/{group}/{version}", f"read {group}/{version}", {})
                if kind in [one["kind"] for one in listed.get("resources") or ()]:
                    self._versions[group] = version
                    break
            else:
                self._versions[group] = ""
        return self._versions[group]

    def _path(self, kind: str, name: str = "") -> str:
        version = self.version_of(kind) if kind in GROUPS else ""
        path = PATHS[kind].format(namespace=quote(self.namespace), version=version)
        return f"{path}/{quote(name, safe=':')}" if name else path

    def _ask(
        self,
        method: str,
        kind: str,
        name: str,
        query: Optional[Mapping[str, str]] = None,
        obj: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> tuple[int, Object]:
        path = self._path(kind, name) + (f"?{urlencode(query)}" if query else "")
        verb = {"GET": "read", "POST": "create", "PUT": "change", "DELETE": "delete"}[method]
        subject = name or ((obj or {}).get("metadata") or {}).get("name", "")
        return self._request(method, path, f"{verb} {kind} {subject}".strip(), headers or {}, obj)

    def _request(
        self,
        method: str,
        path: str,
        what: str,
        headers: Mapping[str, str],
        obj: Optional[Mapping[str, Any]] = None,
    ) -> tuple[int, Object]:
        body = json.dumps(obj).encode() if obj is not None else None
        sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        problem = ""
        for attempt in range(RETRIES if method == "GET" else 1):  # a change may have been made although it failed
            if attempt:
                self._sleep(0.5 * attempt)
            try:
                answer = self.call(method, path, body, sent, self.request_seconds)
            except socket.timeout:
                problem = f"no answer within {self.request_seconds:g} s"
                continue
            except OSError as error:
                problem = str(error)
                continue
            if answer.status == 429 or answer.status >= 500:
                status = _status_object(answer)
                text = answer.body.decode("utf-8", "replace").strip()[:300]
                problem = str((status or {}).get("message") or text or f"HTTP {answer.status}")
                continue
            return self._judged(answer, method, what)
        raise UnreachableError(
            f"the API server {self.cluster.server} (context {self.cluster.context}) can't be asked to {what}: {problem}"
        )

    def _judged(self, answer: Reached, method: str, what: str) -> tuple[int, Object]:
        try:
            document = json.loads(answer.body or b"{}")
            if not isinstance(document, dict):
                raise ValueError("no object")
        except ValueError:
            text = answer.body.decode("utf-8", "replace").strip()[:200]
            raise RunbookError(
                f"{self.cluster.server} does not answer as a Kubernetes API server does (HTTP {answer.status}: {text})"
            ) from None
        with contextlib.suppress(TypeError, ValueError):
            self.answered_at = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        if answer.status < 300:
            return answer.status, document
        message = str(document.get("message") or f"HTTP {answer.status}")
        if answer.status == 404 and method in ("GET", "DELETE"):
            return 404, {}
        if answer.status == 401:
            raise RunbookError(
                f"context: {self.cluster.server} does not accept the credentials of {self.cluster.context} ({message})"
            )
        if answer.status == 403:
            raise ForbiddenError(f"the cluster does not let this user {what} in {self.namespace}: {message}")
        if answer.status == 409:
            raise ConflictError(f"the cluster can't {what} in {self.namespace}: {message}")
        raise RunbookError(f"the cluster refuses to {what} in {self.namespace}: {message}")


class ForbiddenError(RunbookError):
    """The user of the kubeconfig may not do this, or a quota does not allow it."""


class UnreachableError(RunbookError):
    """The API server gave no answer of its own."""


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _status_object(answer: Reached) -> Optional[Object]:
    """The API server's own error; None when the answer is anything else, for example that of a pod."""
    if answer.status < 400:
        return None
    try:
        document = json.loads(answer.body)
    except ValueError:
        return None
    ours = isinstance(document, dict) and document.get("kind") == "Status" and document.get("apiVersion") == "v1"
    return document if ours else None
