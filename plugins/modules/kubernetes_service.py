# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_service
short_description: Move the traffic of Kubernetes Services between slots
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Sends the traffic of every Service of an application to slots of M(signalbox.runbook.kubernetes_release), by its
    selector. All Services switch, or all are put back.
  - Before anything moves, every Service must have a ready pod of the release where it goes to. Afterwards its
    endpoints must be just the ready pods there, and the probes asked through the Services must pass, once more when
    the nodes have had time to follow.
  - A weight between 0 and 100 is made by numbers of pods, with Services that send to both slots. What is to have more
    pods gets them first, and what is to have fewer keeps its own until the others are endpoints; at no time there are
    fewer than either release has with all traffic.
  - With O(ingress) it is made by a canary Ingress and Services beside the user's, for ingress-nginx. Whether the
    controller follows them is not asked.
  - A Service that is missing is made. One that is there is changed only when it is labelled as managed by this
    collection, and of it only the selector.
requirements:
  - kubectl on the host that runs the module; no Python package
  - the right to get, list, create, update and delete Services and ConfigMaps of the namespace, to get, list and update
    Deployments, to get and list Pods and EndpointSlices, and to get pods/proxy
  - with O(ingress) also to get, create, update and delete Ingresses, and to get services/proxy
attributes:
  check_mode:
    support: full
    description: Looks at the cluster, but changes nothing and does not ask the probes.
  diff_mode:
    support: full
    description: Shows the selectors before and after.
extends_documentation_fragment: [signalbox.runbook.cluster]
options:
  state:
    description:
      - V(read) tells where the traffic goes and asks O(ask) once. A probe that fails is a result, not a failure.
      - V(shifted), the traffic goes to the slots of O(weights).
    type: str
    choices: [read, shifted]
    default: read
  fence:
    description: Fencing number of the run; a lower one than the highest seen is refused. Not needed for V(read).
    type: int
  services:
    description: The services that take traffic.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      port:
        description: Port that its containers listen on.
        type: int
        required: true
  overrides:
    description:
      - Per service the C(name) of its Service, by default C(<application>-<service>), and for one that is made C(type),
        C(port), C(node_port), C(annotations) and C(spec).
    type: dict
    default: {}
  weights:
    description: Slot to percent, together 100; or none has anything, for no traffic.
    type: dict
    default: {}
  release:
    description: Id of the release that the traffic moves to; of its slot only its pods get any.
    type: str
    default: ""
  version:
    description: Its version, for an annotation.
    type: str
    default: ""
  releases:
    description: What each slot of O(weights) holds. By default what its Deployments say.
    type: dict
    default: {}
  standby:
    description: Slots without traffic that stay as the quick way back, with as many pods as they had with all of it.
    type: list
    elements: str
    default: []
  back:
    description: Whether this is a way back. Pods that it can't have are said then, but keep no traffic where it is.
    type: bool
    default: false
  prove:
    description: By slot and service the probe that pods which are added must pass, each asked through the API server.
    type: dict
    default: {}
  ingress:
    description:
      - Name of the Ingress that leads to the Services. With it a part of the traffic goes by a canary beside it, and
        not by numbers of pods.
    type: str
    default: ""
  scale_seconds:
    description: Seconds within which pods that are added must be ready.
    type: float
    default: 120
  ask:
    description: Probes to ask, one try each, for O(state=read). As the endpoints of M(signalbox.runbook.probe_info).
    type: list
    elements: dict
    default: []
  confirm:
    description: Probes asked through the Services; all must pass after the switch.
    type: list
    elements: dict
    default: []
  confirm_seconds:
    description: Seconds from the switch within which the endpoints must be the new ones and the probes must pass.
    type: float
    default: 30
  settle_seconds:
    description: Seconds that the nodes get to follow a switch before it counts and before any other one.
    type: float
    default: 2
"""

EXAMPLES = r"""
- name: Send all traffic to green
  signalbox.runbook.kubernetes_service:
    state: shifted
    context: production
    namespace: shop
    application: shop
    environment: production
    fence: 12
    services:
      - {name: api, port: 8080}
    weights: {green: 100}
    release: 1.5.0-0a1b2c3d
    version: 1.5.0
    confirm:
      - name: shop through its Service
        url: https://shop.example.com/version
        version: 1.5.0
        version_path: version
        successes: 5

- name: Give green a tenth
  signalbox.runbook.kubernetes_service:
    state: shifted
    context: production
    namespace: shop
    application: shop
    environment: production
    fence: 13
    services:
      - {name: api, port: 8080}
    weights: {blue: 90, green: 10}
    release: 1.5.0-0a1b2c3d
    version: 1.5.0
"""

RETURN = r"""
weights:
  description:
    - Slot to percent. For O(state=read) what is real, from selectors, ready endpoints and the canary Ingress; after a
      failure, what was put back.
  type: dict
  returned: always
  sample: {green: 100}
exists:
  description: Whether every Service is there.
  type: bool
  returned: for O(state=read)
ours:
  description: Whether those that are there are managed by this collection.
  type: bool
  returned: for O(state=read)
intact:
  description: Whether all send to the same slot and release.
  type: bool
  returned: for O(state=read)
note:
  description: The C(release) that they send to.
  type: dict
  returned: for O(state=read)
ingress:
  description: C(name) of the Ingress, and the C(problem) that keeps a canary from standing beside it, empty for none.
  type: dict
  returned: for O(state=read) with O(ingress)
text:
  description: What the weights are made by, and what could not be had or proven.
  type: str
  returned: for O(state=shifted) with a part of the traffic, or when there is something to say
answers:
  description: Results of O(ask).
  type: list
  elements: dict
  returned: for O(state=read)
confirmed:
  description: Results of O(confirm), last try each; empty in check mode.
  type: list
  elements: dict
  returned: for O(state=shifted)
restored:
  description: Whether the old selectors were put back.
  type: bool
  returned: for O(state=shifted)
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import OPTIONS, connected_by
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_service import Services
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import ask, endpoint
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import closest

SERVICE_OPTIONS = {"name": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}
KEYS = ("name", "type", "port", "node_port", "annotations", "spec")


def named(params: dict[str, Any]) -> list[dict[str, Any]]:
    for name, own in params["overrides"].items():
        if not isinstance(own, dict):
            raise RunbookError(f"overrides.{name}: must be a mapping of {', '.join(KEYS)}")
        for key in own:
            if key not in KEYS:
                raise RunbookError(f"overrides.{name}.{key}: is unknown{closest(key, KEYS)}")
    return [
        {**one, "service": (params["overrides"].get(one["name"]) or {}).get("name") or ""} for one in params["services"]
    ]


def numbered(overrides: dict[str, Any]) -> dict[str, Any]:
    """Ports as numbers; templates and surveys give text."""
    return {
        name: {key: int(value) if key in ("port", "node_port") and value else value for key, value in own.items()}
        for name, own in overrides.items()
    }


def arrange(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    services = named(params)
    probes = [endpoint(raw) for raw in params["confirm"]]

    def confirm(deadline_seconds: float) -> list[dict[str, Any]]:
        return [one.to_dict() for one in ask(probes, deadline_seconds=deadline_seconds, interval_seconds=0.02)]

    with connected_by(params) as api:
        router = Services(
            api,
            params["application"],
            params["environment"],
            services,
            params["fence"] or 0,
            numbered(params["overrides"]),
            params["settle_seconds"],
            ingress=params["ingress"],
            scale_seconds=params["scale_seconds"],
        )
        if params["state"] == "read":
            answers = [one.to_dict() for one in ask([endpoint(raw) for raw in params["ask"]])]
            return {"changed": False, **router.read(), "answers": answers}
        weights = {slot: int(weight) for slot, weight in params["weights"].items()}
        result = router.shift(
            weights,
            params["release"],
            params["version"],
            confirm,
            params["confirm_seconds"],
            check_mode,
            params["releases"],
            params["standby"],
            params["back"],
            params["prove"],
        )
    return {**result, "diff": {"before": result.pop("before"), "after": result.pop("after")}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "read", "choices": ["read", "shifted"]},
            **OPTIONS,
            "fence": {"type": "int"},
            "services": {"type": "list", "elements": "dict", "required": True, "options": SERVICE_OPTIONS},
            "overrides": {"type": "dict", "default": {}},
            "weights": {"type": "dict", "default": {}},
            "release": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "releases": {"type": "dict", "default": {}},
            "standby": {"type": "list", "elements": "str", "default": []},
            "back": {"type": "bool", "default": False},
            "prove": {"type": "dict", "default": {}},
            "ingress": {"type": "str", "default": ""},
            "scale_seconds": {"type": "float", "default": 120},
            "ask": {"type": "list", "elements": "dict", "default": []},
            "confirm": {"type": "list", "elements": "dict", "default": []},
            "confirm_seconds": {"type": "float", "default": 30},
            "settle_seconds": {"type": "float", "default": 2},
        },
        required_if=[("state", "shifted", ("fence",))],
        supports_check_mode=True,
    )
    try:
        result = arrange(module.params, module.check_mode)
    except RunbookError as error:
        module.fail_json(msg=str(error), **{"weights": {}, "restored": False, "confirmed": [], **error.details})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
