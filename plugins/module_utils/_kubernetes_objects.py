# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What we put into a cluster, as plain data. Pure functions. Private: may change at any time.

A release is one ConfigMap that names an image, a ConfigMap and Secrets per service, none of which ever changes: their
names come from their content. A slot of a service is a Deployment made of a release. A Service sends to one slot.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional
from urllib.parse import urlsplit

from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_rollout as rollout
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

Object = dict[str, Any]

SLOTS = ("blue", "green")
PREFIX = "signalbox.runbook/"
APP, SERVICE, SLOT, RELEASE, PART = (PREFIX + word for word in ("app", "service", "slot", "release", "part"))
FENCE, RELEASE_ID, VERSION = (PREFIX + word for word in ("fence", "release-id", "version"))
REPLICAS = PREFIX + "replicas"  # of a Deployment: as many as its release is to have when it has all traffic
SHARES = PREFIX + "shares"  # of a Service that sends to both slots: the weights, and the pods that make them
MANAGED = {"app.kubernetes.io/managed-by": "signalbox.runbook"}
CHANGE_CAUSE = "kubernetes.io/change-cause"
NO_SLOT = "none"  # what a Service without traffic selects
NAME_LIMIT = 52  # of 63: the names of pods are this and 11 characters
SETTINGS = ("replicas", "resources", "deployment", "autoscaling")
NGINX = "nginx.ingress.kubernetes.io/"

SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def digest(value: Any, length: int = 10) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def name(*parts: str, limit: int = NAME_LIMIT) -> str:
    """One name for an object; one that would be too long keeps its beginning and gets a digest."""
    joined = "-".join(parts)
    return joined if len(joined) <= limit else f"{joined[: limit - 9].rstrip('-')}-{digest(joined, 8)}"


def label(text: str) -> str:
    """``text`` as the value of a label: itself where it can be, otherwise readable and still its own."""
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    if clean == text and len(text) <= 63 and re.match(r"[A-Za-z0-9]", text) and re.search(r"[A-Za-z0-9]\Z", text):
        return text
    return f"{clean[:54].strip('_.-')}-{digest(text, 8)}".lstrip("-")


def labels(application: str, service: str = "", slot: str = "", release: str = "") -> dict[str, str]:
    """What is selected by: every label that is given."""
    given = {APP: application, SERVICE: service, SLOT: slot, RELEASE: label(release) if release else ""}
    return {key: value for key, value in given.items() if value}


def _metadata(object_name: str, chosen: Mapping[str, str], annotations: Optional[Mapping[str, str]] = None) -> Object:
    described: Object = {
        "name": object_name,
        "labels": {**MANAGED, "app.kubernetes.io/name": chosen[APP], **chosen},
    }
    if annotations:
        described["annotations"] = dict(annotations)
    return described


def ours(obj: Mapping[str, Any], application: str) -> bool:
    found = obj["metadata"].get("labels") or {}
    return found.get(APP) == application and MANAGED.items() <= found.items()


# -- a release --------------------------------------------------------------------------------------------------


def config_objects(application: str, service: Mapping[str, Any]) -> dict[str, Object]:
    """``config``, ``secret`` and ``files`` of one service, those that it has; named by what is in them."""
    files = {f"file-{number}": text for number, (_path, text) in enumerate(sorted(service["files"].items()))}
    content = {
        "config": ("ConfigMap", "env", dict(service["environment"])),
        "secret": ("Secret", "secret", _encoded(service["secrets"])),
        "files": ("Secret", "files", _encoded(files)),
    }
    found: dict[str, Object] = {}
    for key, (kind, word, data) in content.items():
        if not data:
            continue
        object_name = f"{name(application, service['name'], word)}-{digest(data)}"
        found[key] = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": _metadata(object_name, {**labels(application, service["name"]), PART: word}),
            "immutable": True,
            "data": data,
        }
    return found


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def decoded(secret: Mapping[str, Any]) -> list[str]:
    values = [base64.b64decode(value).decode("utf-8", "replace") for value in (secret.get("data") or {}).values()]
    return sorted({value for value in values if len(value) >= 4}, key=len, reverse=True)


def manifest(
    application: str, environment: str, release: Mapping[str, Any], services: Sequence[Mapping[str, Any]], made_at: str
) -> Object:
    """What a release is, without any secret: from this alone, and what it names, a slot is started."""
    return {
        "format": 1,
        "application": application,
        "environment": environment,
        "id": release["id"],
        "version": release["version"],
        "digest": release["digest"],
        "made_at": made_at,
        "services": {
            one["name"]: {
                "image": one["image"],
                "command": one["command"],
                "objects": {
                    key: {"kind": obj["kind"], "name": obj["metadata"]["name"]}
                    for key, obj in config_objects(application, one).items()
                },
                "files": sorted(one["files"]),
                "settings": {key: one["settings"][key] for key in SETTINGS if key in one["settings"]},
            }
            for one in services
        },
    }


def manifest_name(application: str, release_id: str) -> str:
    return f"{name(application, 'release')}-{digest(release_id)}"


def manifest_object(made: Mapping[str, Any]) -> Object:
    chosen = {**labels(made["application"], release=made["id"]), PART: "release"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(manifest_name(made["application"], made["id"]), chosen),
        "immutable": True,
        "data": {"release.json": json.dumps(made, sort_keys=True)},
    }


def read_manifest(obj: Mapping[str, Any]) -> Optional[Object]:
    """The manifest in a ConfigMap; None when it is none of ours that we can read."""
    try:
        made = json.loads(obj["data"]["release.json"])
        if made["format"] == 1 and made["id"] and made["services"]:
            return dict(made)
    except (KeyError, TypeError, ValueError):
        pass
    return None


# -- a slot -----------------------------------------------------------------------------------------------------


def slot_name(application: str, service: str, slot: str) -> str:
    return name(application, service, slot)


def deployment(
    made: Mapping[str, Any],
    service: Mapping[str, Any],
    slot: str,
    settings: Mapping[str, Any],
    fence: int,
    started_at: str,
    replicas: Optional[int] = None,
) -> Object:
    """The Deployment of one service in a slot, with ``replicas`` to begin with, otherwise all it is to have. What the
    user's own manifest says is kept, except what makes the slot: name, labels, selector, image, how pods are replaced,
    and our variables.

    ``service``: name, port, limits and probes of today; ``settings``: pre_stop_seconds, sleep_action, and more that
    belongs to the cluster and not to the release.
    """
    application, service_name = made["application"], service["name"]
    part = made["services"][service_name]
    own = copy.deepcopy(part["settings"]["deployment"] or {})
    chosen = labels(application, service_name, slot)
    shown = {**labels(application, service_name, slot, made["id"]), "app.kubernetes.io/version": label(made["version"])}
    grace = math.ceil(settings["pre_stop_seconds"] + service["stop_seconds"] + 1)

    template = own.setdefault("spec", {}).setdefault("template", {})
    pod = template.setdefault("spec", {})
    container = _container(pod, service_name)
    _fill_container(container, made, part, service, slot, settings, started_at)
    _mount_files(pod, container, part, settings)
    pod.setdefault("securityContext", dict(POD_SECURITY))
    pod.setdefault("enableServiceLinks", False)
    if "serviceAccountName" not in pod:
        pod.setdefault("automountServiceAccountToken", False)
    if settings["image_pull_secrets"]:
        pod.setdefault("imagePullSecrets", [{"name": secret} for secret in settings["image_pull_secrets"]])
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    pod.setdefault("topologySpreadConstraints", [{**spread, "labelSelector": {"matchLabels": chosen}}])
    pod["terminationGracePeriodSeconds"] = max(grace, int(pod.get("terminationGracePeriodSeconds") or 0))

    described = _metadata(slot_name(application, service_name, slot), shown)
    inner = template.setdefault("metadata", {})
    inner["labels"] = {**(inner.get("labels") or {}), **described["labels"]}
    metadata = own.setdefault("metadata", {})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": described["name"],
            "labels": {**(metadata.get("labels") or {}), **described["labels"]},
            "annotations": {
                **(metadata.get("annotations") or {}),
                CHANGE_CAUSE: f"{made['version']} ({made['id']}), fencing number {fence}",
                RELEASE_ID: made["id"],
                VERSION: made["version"],
                FENCE: str(fence),
                **_scaling(part["settings"]),
            },
        },
        "spec": {
            **own["spec"],
            "replicas": part["settings"]["replicas"] if replicas is None else replicas,
            "selector": {"matchLabels": chosen},
            # We never change one that is there. Whoever does it by hand gets no gap.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": math.ceil(service["start_seconds"] + grace + 60),
            "template": template,
        },
    }


def _scaling(settings: Mapping[str, Any]) -> dict[str, str]:
    scaled = settings.get("autoscaling")
    if not scaled:
        return {REPLICAS: str(settings["replicas"])}
    return {rollout.AUTOSCALED: f"{scaled['min']}-{scaled['max']}"}


def full(held: Mapping[str, Any]) -> Optional[int]:
    """As many replicas as a Deployment is to have with all traffic; None where an autoscaler says."""
    notes = held["metadata"].get("annotations") or {}
    if rollout.AUTOSCALED in notes:
        return None
    text = str(notes.get(REPLICAS) or "")
    return int(text) if text.isdigit() else rollout.wanted(held)


def _container(pod: Object, service: str) -> Object:
    """The container of the service: the one of its name, else the first, else a new one."""
    containers = pod.setdefault("containers", [])
    found = next((one for one in containers if one.get("name") == service), containers[0] if containers else None)
    if found is None:
        found = {"name": service}
        containers.append(found)
    found.setdefault("name", service)
    result: Object = found
    return result


def _fill_container(
    container: Object,
    made: Mapping[str, Any],
    part: Mapping[str, Any],
    service: Mapping[str, Any],
    slot: str,
    settings: Mapping[str, Any],
    started_at: str,
) -> None:
    container["image"] = part["image"]
    container.setdefault("imagePullPolicy", settings["image_pull_policy"])
    if part["command"]:
        container["command"], container["args"] = ["/bin/sh", "-c", f"exec {part['command']}"], []
    variables = {
        "PORT": str(service["port"]),
        "SLOT": slot,
        "RELEASE": made["id"],
        "DEPLOYED_VERSION": made["version"],
        "DEPLOYED_AT": started_at,
    }
    kept = [one for one in container.get("env") or [] if one.get("name") not in variables]
    container["env"] = [*kept, *({"name": key, "value": value} for key, value in variables.items())]
    sources = {"config": "configMapRef", "secret": "secretRef"}
    objects = part["objects"]
    refs = [{ref: {"name": objects[key]["name"]}} for key, ref in sources.items() if key in objects]
    if refs:
        container["envFrom"] = [*(container.get("envFrom") or []), *refs]
    if not any(one.get("containerPort") == service["port"] for one in container.get("ports") or []):
        container["ports"] = [*(container.get("ports") or []), {"containerPort": service["port"], "protocol": "TCP"}]
    if part["settings"]["resources"]:
        container["resources"] = part["settings"]["resources"]
    container.setdefault("securityContext", dict(SECURITY))
    seconds = settings["pre_stop_seconds"]
    if seconds:
        # Requests that are on their way while the endpoint is taken off the Service still find somebody.
        sleep: Object = {"sleep": {"seconds": math.ceil(seconds)}}
        if not settings["sleep_action"]:
            sleep = {"exec": {"command": ["sleep", str(math.ceil(seconds))]}}
        container.setdefault("lifecycle", {}).setdefault("preStop", sleep)
    ready = readiness(service)
    tcp = {"tcpSocket": {"port": service["port"]}}
    container.setdefault("readinessProbe", {**ready, "periodSeconds": 5, "failureThreshold": 3})
    # Not the health probe: a data store that is down would have every pod restarted, which brings it no closer.
    container.setdefault("livenessProbe", {**tcp, "periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 5})
    tries = max(3, math.ceil(service["start_seconds"]) + 30)
    container.setdefault("startupProbe", {**ready, "periodSeconds": 1, "failureThreshold": tries})


def readiness(service: Mapping[str, Any]) -> Object:
    """What the kubelet asks: the first probe of the service, as far as the kubelet can ask it."""
    port = service["port"]
    for probe in service["probes"]:
        accepted = probe.get("status") or [200]
        if not any(200 <= code < 400 for code in accepted):
            continue
        parts = urlsplit(probe["url"].replace("{port}", str(port)))
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        get: Object = {"path": path or "/", "port": port, "scheme": parts.scheme.upper()}
        headers = probe.get("headers") or {}
        if headers:
            get["httpHeaders"] = [{"name": key, "value": str(value)} for key, value in headers.items()]
        return {"httpGet": get, "timeoutSeconds": max(1, math.ceil(probe.get("timeout_seconds") or 5))}
    return {"tcpSocket": {"port": port}, "timeoutSeconds": 5}


def _mount_files(pod: Object, container: Object, part: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if "files" not in part["objects"]:
        return
    items = [{"key": f"file-{number}", "path": path} for number, path in enumerate(part["files"])]
    volume = {"secretName": part["objects"]["files"]["name"], "items": items, "defaultMode": 0o444}
    pod["volumes"] = [*(pod.get("volumes") or []), {"name": "runbook-files", "secret": volume}]
    mount = {"name": "runbook-files", "mountPath": settings["files_path"], "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]


def disruption_budget(application: str, service: str, slot: str) -> Object:
    chosen = labels(application, service, slot)
    return {
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(slot_name(application, service, slot), chosen),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": chosen}},
    }


def autoscaler(application: str, service: str, slot: str, scaled: Mapping[str, Any], version: str) -> Object:
    """The HorizontalPodAutoscaler of a slot, in the form of an API version."""
    object_name = slot_name(application, service, slot)
    spec: Object = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": object_name},
        "minReplicas": scaled["min"],
        "maxReplicas": scaled["max"],
    }
    if version == "v1":
        spec["targetCPUUtilizationPercentage"] = scaled["cpu_percent"]
    else:
        target = {"type": "Utilization", "averageUtilization": scaled["cpu_percent"]}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(object_name, labels(application, service, slot)),
        "spec": spec,
    }


# -- a Service --------------------------------------------------------------------------------------------------


def selector(application: str, service: str, slot: str, release: str) -> dict[str, str]:
    """What a Service sends to: one slot, and there one release only. Without a slot to nothing."""
    return labels(application, service, slot or NO_SLOT, release)


def service_object(
    application: str, service: Mapping[str, Any], chosen: Mapping[str, str], fence: int, template: Mapping[str, Any]
) -> Object:
    """A new Service. ``template`` is what the user says of it: type, ports, annotations."""
    spec = copy.deepcopy(dict(template.get("spec") or {}))
    spec.setdefault("type", template.get("type") or "ClusterIP")
    port: Object = {"name": "http", "port": template.get("port") or service["port"], "targetPort": service["port"]}
    if template.get("node_port"):
        port["nodePort"] = template["node_port"]
    spec.setdefault("ports", [port])
    spec["selector"] = dict(chosen)
    annotations = {**(template.get("annotations") or {}), FENCE: str(fence)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service["service"], labels(application, service["name"]), annotations),
        "spec": spec,
    }


def both_slots(application: str, service: str) -> dict[str, str]:
    """What a Service sends to whose traffic is shared by number of replicas: every pod of the service."""
    return labels(application, service)


# -- an Ingress beside the user's -------------------------------------------------------------------------------


def canary_name(of: str) -> str:
    return name(of, "canary", limit=63)


def canary_service(
    application: str, service: Mapping[str, Any], stable: Mapping[str, Any], slot: str, release: str, fence: int
) -> Object:
    """The Service of the slot that gets a part, with the ports of the one that has the rest."""
    keep = ("name", "protocol", "appProtocol", "port", "targetPort")
    ports = [{key: port[key] for key in keep if key in port} for port in stable["spec"].get("ports") or ()]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(
            canary_name(service["service"]),
            {**labels(application, service["name"]), PART: "canary"},
            {FENCE: str(fence), RELEASE_ID: release},
        ),
        "spec": {
            "type": "ClusterIP",
            "ports": ports,
            "selector": selector(application, service["name"], slot, release),
        },
    }


def canary_ingress(
    application: str, stable: Mapping[str, Any], instead: Mapping[str, str], weight: int, fence: int
) -> Object:
    """The Ingress that carries the weight: the rules of the user's that lead to one of our Services, to ``instead`` of
    it. Of the annotations only what chooses and tunes the controller: one for certificates or DNS would have others
    act on it too."""
    rules = []
    for rule in stable["spec"].get("rules") or ():
        paths = [
            _led(path, instead) for path in (rule.get("http") or {}).get("paths") or () if backend(path) in instead
        ]
        if paths:
            rules.append({**rule, "http": {"paths": paths}})
    kept = {
        key: value
        for key, value in (stable["metadata"].get("annotations") or {}).items()
        if key == "kubernetes.io/ingress.class" or (key.startswith(NGINX) and not key.startswith(f"{NGINX}canary"))
    }
    weighed = {f"{NGINX}canary": "true", f"{NGINX}canary-weight": str(weight), FENCE: str(fence)}
    chosen = {**labels(application), PART: "canary"}
    spec: Object = {"rules": rules}
    if stable["spec"].get("ingressClassName"):
        spec["ingressClassName"] = stable["spec"]["ingressClassName"]
    return {
        "kind": "Ingress",
        "metadata": _metadata(canary_name(stable["metadata"]["name"]), chosen, {**kept, **weighed}),
        "spec": spec,
    }


def backend(path: Mapping[str, Any]) -> str:
    """The Service that a path of an Ingress leads to, in either form of the API."""
    found = path.get("backend") or {}
    return str((found.get("service") or {}).get("name") or found.get("serviceName") or "")


def _led(path: Mapping[str, Any], instead: Mapping[str, str]) -> Object:
    found = copy.deepcopy(dict(path))
    if "service" in found["backend"]:
        found["backend"]["service"]["name"] = instead[backend(path)]
    else:
        found["backend"]["serviceName"] = instead[backend(path)]
    return found


def led_to(ingress: Mapping[str, Any]) -> set[str]:
    """The Services that an Ingress has rules for."""
    rules = ingress["spec"].get("rules") or ()
    return {backend(path) for rule in rules for path in (rule.get("http") or {}).get("paths") or ()} - {""}


def canary_weight(ingress: Optional[Mapping[str, Any]]) -> int:
    """The part that an Ingress carries; 0 for none."""
    notes = ((ingress or {}).get("metadata") or {}).get("annotations") or {}
    text = str(notes.get(f"{NGINX}canary-weight") or "")
    return int(text) if notes.get(f"{NGINX}canary") == "true" and text.isdigit() else 0


# -- fence ------------------------------------------------------------------------------------------------------


def fence_of(obj: Optional[Mapping[str, Any]]) -> int:
    """The fencing number under which an object was last changed; 0 for none."""
    text = str((((obj or {}).get("metadata") or {}).get("annotations") or {}).get(FENCE) or "")
    return int(text) if text.isdigit() else 0


def refuse_older(number: int, seen: int) -> None:
    if number < seen:
        raise RunbookError(
            f"fencing number {number} is older than {seen}: this run lost its lease to a newer one and must not change "
            "anything any more",
            fenced=True,
        )


def state_object(application: str, environment: str, fence: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(
            name(application, "runbook"), {**labels(application), PART: "state"}, {FENCE: str(fence)}
        ),
        "data": {"application": application, "environment": environment},
    }
