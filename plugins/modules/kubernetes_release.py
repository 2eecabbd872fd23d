# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_release
short_description: Releases and slots of an application in a Kubernetes namespace
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Does one whole phase of a deployment in one call, in one namespace of one cluster.
  - A release is a ConfigMap that names the image, and a ConfigMap and Secrets per service. Their names come from their
    content and they are immutable, so configuration goes back together with the code.
  - A slot, V(blue) or V(green), is a Deployment per service, beside that of the other slot. It is started service by
    service; each must be rolled out, with every pod ready and passing its probes, before the next one starts.
  - The probes are asked through the API server, so they work wherever that is reached.
  - Nothing is done when the slot already runs the release and every probe passes. The slot that takes the traffic is
    neither started nor stopped.
  - After a failure the slot is left as it is, to be looked at; stop it with O(state=stopped).
requirements:
  - kubectl on the host that runs the module; no Python package
  - the right to get, list, create, update and delete ConfigMaps, Secrets, Deployments and
    PodDisruptionBudgets of the namespace, and to get and list Pods, C(pods/log), C(pods/proxy) and Events
attributes:
  check_mode:
    support: full
    description: Looks at the cluster and has it check the manifests (dry run), but changes nothing.
  diff_mode:
    support: full
    description: Shows what the slots hold before and after.
extends_documentation_fragment: [signalbox.runbook.cluster]
options:
  state:
    description:
      - V(read) tells what there is and asks every probe once. What is wrong is told in the result, it is not a failure.
      - V(staged), the release is there. V(started), the slot runs it. V(stopped), the slot runs nothing.
      - V(proven) changes nothing and fails unless the slot runs just O(release), every pod and every probe.
      - V(pruned), the releases of O(remove) and what only they need are gone.
    type: str
    choices: [read, staged, started, proven, stopped, pruned]
    default: read
  fence:
    description: Fencing number of the run; a lower one than the highest seen is refused. Not needed for V(read).
    type: int
  slot:
    description: The slot. Needed for O(state=started), O(state=proven) and O(state=stopped).
    type: str
    choices: [blue, green]
  live_slot:
    description: The slot that takes the traffic, empty for none. It is not touched.
    type: str
    default: ""
  only:
    description:
      - Names of the services that a start or stop is about. The others of the slot are left alone.
      - A start then needs the slot to hold O(release) already.
    type: list
    elements: str
    default: []
  release:
    description: The release. Needed for O(state=staged), O(state=started) and O(state=proven).
    type: dict
    suboptions:
      id:
        description: Its id.
        type: str
        required: true
      version:
        description: Its version.
        type: str
        required: true
      digest:
        description: Digest of all that it is made of. Needed for O(state=staged).
        type: str
  services:
    description: The services, in the order in which they start.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      port:
        description: Port that its container listens on; it finds it in the variable E(PORT).
        type: int
      exclusive:
        description: Whether it may run in one slot only, for O(state=read).
        type: bool
        default: false
      ports:
        description: The same per slot, for O(state=read).
        type: dict
        suboptions:
          blue:
            description: Port in V(blue).
            type: int
            required: true
          green:
            description: Port in V(green).
            type: int
            required: true
      start_seconds:
        description: Seconds within which all pods must be ready, and again within which the probes must pass.
        type: float
        default: 60
      stop_seconds:
        description: Seconds from SIGTERM to SIGKILL.
        type: float
        default: 10
      drain_seconds:
        description: Not used; pods drain as long as their grace allows.
        type: float
        default: 10
      probes:
        description:
          - What proves the service, as the endpoints of M(signalbox.runbook.probe_info). The host in the URL must be
            V(127.0.0.1:{port}); it becomes each pod in turn.
          - The kubelet asks the first of them for readiness.
        type: list
        elements: dict
        default: []
      image:
        description: What the container runs, with a tag or better a digest. O(state=staged) needs it.
        type: str
      command:
        description: Shell words that start the service instead of the image's own command.
        type: str
      environment:
        description: Environment variables, as a ConfigMap.
        type: dict
        default: {}
      secrets:
        description: Environment variables that are never shown, as a Secret.
        type: dict
        default: {}
      files:
        description: Files by path below O(files_path), as a Secret.
        type: dict
        default: {}
  replicas:
    description: Number of pods of a service in a slot with all traffic.
    type: int
    default: 2
  shares:
    description:
      - For O(state=started) with O(live_slot), by service the percent of the traffic that it gets at first. It begins
        with as many pods as that needs beside those of the live slot; without it, with all.
    type: dict
    default: {}
  resources:
    description: The C(resources) of a service's container.
    type: dict
    default: {}
  autoscaling:
    description:
      - C(min), C(max) and C(cpu_percent) of a HorizontalPodAutoscaler for each slot of a service; empty for none.
      - A slot that has one begins with as many pods as the live one has by then.
    type: dict
    default: {}
  overrides:
    description:
      - Per service C(replicas), C(resources), C(autoscaling) and C(deployment), a Deployment of your own to begin with.
    type: dict
    default: {}
  files_path:
    description: Directory at which the container finds O(services[].files).
    type: path
    default: /etc/app
  image_pull_policy:
    description: When the nodes pull the image.
    type: str
    choices: [Always, IfNotPresent, Never]
    default: IfNotPresent
  image_pull_secrets:
    description: Names of the Secrets with which the nodes pull the image.
    type: list
    elements: str
    default: []
  pre_stop_seconds:
    description: Seconds from when a pod is taken off its Service until its process is told to stop.
    type: float
    default: 5
  remove:
    description: Ids of the releases to remove, for O(state=pruned).
    type: list
    elements: str
    default: []
  keep:
    description: Ids of the releases that stay, for O(state=pruned).
    type: list
    elements: str
    default: []
  log_lines:
    description: How many of the last lines of each service's output to return, for O(state=read).
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Look at what there is
  signalbox.runbook.kubernetes_release:
    context: production
    namespace: shop
    expected_server: https://kubernetes.example.com:6443
    application: shop
    environment: production
    services:
      - name: api
        ports: {blue: 8080, green: 8080}
        probes:
          - {name: api health, url: "http://127.0.0.1:{port}/health"}

- name: Run a staged release in green
  signalbox.runbook.kubernetes_release:
    state: started
    context: production
    namespace: shop
    application: shop
    environment: production
    fence: 12
    slot: green
    live_slot: blue
    release: {id: 1.5.0-0a1b2c3d, version: 1.5.0}
    services:
      - name: api
        port: 8080
        probes:
          - {name: api health, url: "http://127.0.0.1:{port}/health"}
          - {name: api version, url: "http://127.0.0.1:{port}/version", version_path: version, version: 1.5.0}
"""

RETURN = r"""
cluster:
  description: C(context), C(server) and C(namespace).
  type: dict
  returned: for O(state=read)
releases:
  description: The whole releases, oldest first, each with C(id), C(version), C(digest) and C(made_at).
  type: list
  elements: dict
  returned: for O(state=read)
foreign:
  description: ConfigMaps of releases that are damaged.
  type: list
  elements: str
  returned: for O(state=read)
slots:
  description:
    - What V(blue) and V(green) hold. Each has C(release), C(version), C(running), C(healthy), the C(answers) of every
      pod, C(services) with C(state), C(ready), C(replicas), C(full) (as many as it has with all traffic),
      C(autoscaled), C(restarts) and C(image), and C(log) where asked for.
  type: dict
  returned: for O(state=read)
seen_fence:
  description: Highest fencing number seen, 0 for none.
  type: int
  returned: for O(state=read)
answers:
  description: Results of the probes as of M(signalbox.runbook.probe_info), each with its C(service).
  type: list
  elements: dict
  returned: for O(state=started) and O(state=proven)
text:
  description: What was done, in a few words.
  type: str
  returned: for O(state=staged) and O(state=pruned)
removed:
  description: Ids of the releases that were removed.
  type: list
  elements: str
  returned: for O(state=pruned)
log:
  description: Last lines of output by service, of those that were stopped or did not get healthy.
  type: dict
  returned: for O(state=stopped), and when a service did not get healthy
diagnosis:
  description: What is wrong with a service, the likely cause first, with C(name), C(kind), C(problem) and C(fix).
  type: list
  elements: dict
  returned: when a service did not get healthy
fenced:
  description: Whether the run was refused because its fencing number is older than one seen before.
  type: bool
  returned: when it was
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import OPTIONS, connected_by
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_objects import SETTINGS, SLOTS
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_release import Releases
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import closest

SERVICE_OPTIONS = {
    "name": {"type": "str", "required": True},
    "port": {"type": "int"},
    "ports": {"type": "dict", "options": {slot: {"type": "int", "required": True} for slot in SLOTS}},
    "exclusive": {"type": "bool", "default": False},
    "start_seconds": {"type": "float", "default": 60},
    "stop_seconds": {"type": "float", "default": 10},
    "drain_seconds": {"type": "float", "default": 10},
    "probes": {"type": "list", "elements": "dict", "default": []},
    "image": {"type": "str"},
    "command": {"type": "str"},
    "environment": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "files": {"type": "dict", "default": {}, "no_log": True},
}
RELEASE_OPTIONS = {
    "id": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "digest": {"type": "str", "no_log": False},
}
IN_CLUSTER = ("image_pull_policy", "image_pull_secrets", "pre_stop_seconds", "files_path")


def parts(params: dict[str, Any]) -> list[dict[str, Any]]:
    """The services of a release that is made."""
    names = [one["name"] for one in params["services"]]
    for name, own in params["overrides"].items():
        if name not in names:
            raise RunbookError(f"overrides.{name}: is no service{closest(name, names)}")
        if not isinstance(own, dict):
            raise RunbookError(f"overrides.{name}: must be a mapping of {', '.join(SETTINGS)}")
        for key, value in own.items():
            if key not in SETTINGS:
                raise RunbookError(f"overrides.{name}.{key}: is unknown{closest(key, SETTINGS)}")
            if key == "replicas" and not str(value).isdigit():
                raise RunbookError(f"overrides.{name}.replicas: must be a whole number, not {value!r}")
            if key != "replicas" and value and not isinstance(value, dict):
                raise RunbookError(f"overrides.{name}.{key}: must be a mapping")
    found = []
    for one in params["services"]:
        own = params["overrides"].get(one["name"]) or {}
        replicas = int(own.get("replicas", params["replicas"]))
        if replicas < 1:
            raise RunbookError(f"replicas: {one['name']} needs at least 1, not {replicas}")
        image = one["image"]
        if not image:
            raise RunbookError(f"services: {one['name']} has no image")
        settings = {
            "replicas": replicas,
            "resources": own.get("resources", params["resources"]) or {},
            "deployment": own.get("deployment") or {},
        }
        scaled = autoscaling(own.get("autoscaling", params["autoscaling"]), one["name"])
        if scaled:
            settings["autoscaling"] = measured(scaled, settings, one["name"])
        texts = {
            key: {name: str(value) for name, value in one[key].items()} for key in ("environment", "secrets", "files")
        }
        found.append({"name": one["name"], "image": image, "command": one["command"], "settings": settings, **texts})
    return found


def autoscaling(raw: Any, service: str) -> dict[str, int]:
    """What an autoscaler is given; empty for none."""
    if not raw:
        return {}
    found = {"cpu_percent": 80}
    for key, value in raw.items():
        if key not in ("min", "max", "cpu_percent"):
            raise RunbookError(
                f"autoscaling.{key}: is unknown{closest(key, ('min', 'max', 'cpu_percent'))} ({service})"
            )
        if not str(value).isdigit() or int(value) < 1:
            raise RunbookError(f"autoscaling.{key}: must be a whole number above 0, not {value!r} ({service})")
        found[key] = int(value)
    for key in ("min", "max"):
        if key not in found:
            raise RunbookError(f"autoscaling.{key}: is missing; give a number of pods ({service})")
    if found["min"] > found["max"]:
        raise RunbookError(f"autoscaling.min: {found['min']} is more than max, {found['max']} ({service})")
    return found


def measured(scaled: dict[str, int], settings: dict[str, Any], service: str) -> dict[str, int]:
    """A share of the requested CPU can be kept only where some is requested."""
    pod = ((settings["deployment"].get("spec") or {}).get("template") or {}).get("spec") or {}
    asked = (
        [settings["resources"]] if settings["resources"] else [c.get("resources") for c in pod.get("containers") or ()]
    )
    if not asked or not all(((one or {}).get("requests") or {}).get("cpu") for one in asked):
        raise RunbookError(
            f"autoscaling: goes by the CPU that {service} requests, but it requests none; give resources.requests.cpu"
        )
    return scaled


def arrange(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    with connected_by(params) as api:
        settings = {key: params[key] for key in IN_CLUSTER}
        releases = Releases(api, params["application"], params["environment"], params["fence"] or 0, settings)
        state, services, slot = params["state"], params["services"], params["slot"]
        if state == "read":
            seen = releases.read(services, params["log_lines"])
            return {"changed": False, "seen_fence": seen.pop("fence"), **seen}
        if state == "staged":
            return releases.stage(params["release"], parts(params), check_mode)
        if state == "started":
            shares = {name: int(share) for name, share in params["shares"].items()}
            result = releases.start(
                slot, params["release"], services, params["live_slot"], check_mode, shares, params["only"]
            )
            held = {"slot": slot, "release": params["release"]["id"]}
            return {**result, "diff": {"before": {} if result["changed"] else held, "after": held}}
        if state == "proven":
            return releases.prove(slot, params["release"], services)
        if state == "stopped":
            return releases.stop(slot, params["live_slot"], check_mode, params["only"])
        return releases.prune(params["remove"], params["keep"], check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "default": "read",
                "choices": ["read", "staged", "started", "proven", "stopped", "pruned"],
            },
            **OPTIONS,
            "fence": {"type": "int"},
            "slot": {"type": "str", "choices": list(SLOTS)},
            "live_slot": {"type": "str", "default": ""},
            "only": {"type": "list", "elements": "str", "default": []},
            "release": {"type": "dict", "options": RELEASE_OPTIONS},
            "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE_OPTIONS},
            "replicas": {"type": "int", "default": 2},
            "resources": {"type": "dict", "default": {}},
            "shares": {"type": "dict", "default": {}},
            "autoscaling": {"type": "dict", "default": {}},
            "overrides": {"type": "dict", "default": {}},
            "files_path": {"type": "path", "default": "/etc/app"},
            "image_pull_policy": {
                "type": "str",
                "default": "IfNotPresent",
                "choices": ["Always", "IfNotPresent", "Never"],
            },
            "image_pull_secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "pre_stop_seconds": {"type": "float", "default": 5},
            "remove": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "list", "elements": "str", "default": []},
            "log_lines": {"type": "int", "default": 0},
        },
        required_if=[
            ("state", "staged", ("release", "fence", "services")),
            ("state", "started", ("release", "fence", "services", "slot")),
            ("state", "proven", ("release", "services", "slot")),
            ("state", "stopped", ("fence", "slot")),
            ("state", "pruned", ("fence", "remove")),
        ],
        supports_check_mode=True,
    )
    try:
        result = arrange(module.params, module.check_mode)
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
