# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_backend
short_description: Shift traffic between slots by weight in HAProxy, or read the weights
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Sets state and weight of the servers of backends through HAProxy's runtime API. Nothing is reloaded and no file of
    HAProxy's configuration is written, so HAProxy may be configured by others.
  - New servers are raised, and one must be up, before old ones are lowered. Then it asks through HAProxy which version
    answers. Where that is not as expected, the old weights are put back before the module fails.
  - Servers that lost their traffic may end their sessions and are then put into maintenance.
  - What HAProxy was told is written to the server state file that it reads when it starts.
  - Nothing is done when HAProxy has the same weights already and answers as expected.
  - A run that was killed half-way is finished or undone by the next one.
attributes:
  check_mode:
    support: full
    description: Compares the weights, but neither asks through HAProxy nor takes the fence.
  diff_mode:
    support: full
    description: Shows state and weight of every server before and after.
options:
  state:
    description: V(shifted) arranges the traffic; V(read) changes nothing, and a probe that fails is then a result.
    type: str
    choices: [read, shifted]
    default: shifted
  socket_path:
    description: The socket of a C(stats socket) line with C(level admin).
    type: path
    default: /run/haproxy/admin.sock
  home:
    description:
      - Directory of this collection on the router host, for the fence and for the weights last proven.
      - Every application needs its own.
    type: path
    required: true
  fence:
    description:
      - Fencing number of the run; a number lower than the highest seen is refused.
      - Required when O(state=shifted).
    type: int
  state_path:
    description:
      - The C(server-state-file) of HAProxy's configuration. The servers of all backends are written there after each
        change.
      - Empty writes none; HAProxy then forgets the weights when it restarts.
    type: str
    default: /var/lib/haproxy/server-state
  config_path:
    description:
      - HAProxy's configuration, a file or a directory of C(.cfg) files. It is only read, to warn when HAProxy would not
        load the state file.
      - Empty skips the check.
    type: str
    default: /etc/haproxy/haproxy.cfg
  upstreams:
    description:
      - The backends of the application. Their servers are told by address and port; servers that are no member are
        taken out, except for C(backup) servers.
      - When it is left out with O(state=read), the backends of the last shift are read.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the backend.
        type: str
        required: true
      members:
        description: Where its slots answer. Every one needs a C(server) line in the backend.
        type: list
        elements: dict
        default: []
        suboptions:
          address:
            description: IP address or host name, as the C(server) line has it or as the router host resolves it.
            type: str
            required: true
          port:
            description: TCP port.
            type: int
            required: true
          slot:
            description: Slot that the member belongs to.
            type: str
            required: true
          weight:
            description: Share of the traffic relative to the other members, 0 to 256; 0 is none.
            type: int
            required: true
  note:
    description: Kept in O(home) and given back by O(state=read), for example release and version per slot.
    type: dict
    default: {}
  probes:
    description: Asked through HAProxy. For V(shifted) all must pass after the shift; V(read) asks each once.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the probe is called in messages; its URL when left out.
        type: str
      url:
        description: Address asked, on the router. Redirects are not followed.
        type: str
        required: true
      method:
        description: HTTP method.
        type: str
        choices: [GET, HEAD, OPTIONS]
        default: GET
      status:
        description: HTTP statuses that pass.
        type: list
        elements: int
        default: [200]
      expect:
        description: Dotted JSON paths of the body and the values that they must have.
        type: dict
        default: {}
      body:
        description: Regular expression that must be found in the body.
        type: str
      headers:
        description: Request headers, for example V(Host) for a virtual server.
        type: dict
        default: {}
      secret_headers:
        description: Request headers that are never shown, for example V(Authorization).
        type: dict
        default: {}
      expect_headers:
        description: Answer headers and the regular expressions that must be found in them.
        type: dict
        default: {}
      version:
        description: Version that must answer.
        type: str
      versions:
        description: Versions of which any may answer, for example while two slots share the traffic.
        type: list
        elements: str
        default: []
      version_path:
        description: Dotted JSON path of the version in the body; empty when the whole body is the version.
        type: str
        default: ""
      within_ms:
        description: Milliseconds within which the answer must be complete.
        type: int
      successes:
        description: How many answers in a row must pass, each on a new connection.
        type: int
        default: 1
      timeout_seconds:
        description: Seconds one request may take.
        type: float
        default: 5
      validate_certs:
        description: Whether the TLS certificate must be trusted and fit the name.
        type: bool
        default: true
      ca_path:
        description: File of the certificate authorities to trust instead of the system's.
        type: path
  confirm_seconds:
    description: Seconds from the first change within which a new server must be up and the probes must pass.
    type: float
    default: 15
  drain_seconds:
    description:
      - Seconds that the sessions of servers without traffic may take to end, after the new ones are proven.
      - What is left then is cut, and counted in RV(connections_cut).
    type: float
    default: 30
  answer_seconds:
    description: Seconds within which HAProxy must answer one command.
    type: float
    default: 5
"""

EXAMPLES = r"""
- name: Send a tenth of the traffic to green
  signalbox.runbook.haproxy_backend:
    home: /var/lib/runbook/shop-production
    fence: 12
    upstreams:
      - name: shop_api
        members:
          - {address: 10.0.0.11, port: 8001, slot: blue, weight: 90}
          - {address: 10.0.0.11, port: 8002, slot: green, weight: 10}
    note:
      versions: {blue: 1.4.0, green: 1.5.0}
    probes:
      - name: shop through the router
        url: http://127.0.0.1/version
        headers: {Host: shop.example.com}
        versions: [1.4.0, 1.5.0]
        version_path: version
        successes: 5

- name: See where the traffic goes
  signalbox.runbook.haproxy_backend:
    state: read
    home: /var/lib/runbook/shop-production
    probes:
      - name: shop through the router
        url: http://127.0.0.1/version
        version_path: version
  register: router
"""

RETURN = r"""
weights:
  description:
    - Weight per slot, the highest of its members. With O(state=read), what HAProxy has now; V(unlisted) are servers of
      the backends that no upstream lists and that have traffic although a shift took it from them.
    - After a failure, the weights that were put back.
  type: dict
  returned: always
  sample: {blue: 90, green: 10}
down:
  description: Servers that are to have traffic and get none, because HAProxy's own checks say that they are down.
  type: list
  elements: str
  returned: success
confirmed:
  description: Results of the probes, last try each; empty in check mode.
  type: list
  elements: dict
  returned: O(state=shifted)
restored:
  description: Whether the old weights were put back.
  type: bool
  returned: O(state=shifted)
connections_cut:
  description: Sessions that had not ended when O(drain_seconds) were over.
  type: int
  returned: O(state=shifted)
answers:
  description: One result per probe.
  type: list
  elements: dict
  returned: O(state=read)
below:
  description: Members that get less of the traffic than others of their slot; at rest there are none.
  type: list
  elements: str
  returned: O(state=read)
note:
  description: What the last shift noted.
  type: dict
  returned: O(state=read)
pending:
  description: Whether the last shift did not end.
  type: bool
  returned: O(state=read)
servers:
  description: The servers of the backends with slot, state, weight, number of sessions, and whether they are usable.
  type: list
  elements: dict
  returned: O(state=read)
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._answer import give, refusal
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._fence import fenced
from ansible_collections.signalbox.runbook.plugins.module_utils._haproxy import Router, forgetful, read_config, talk
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import PROBE_OPTIONS, ask, endpoint
from ansible_collections.signalbox.runbook.plugins.module_utils._upstreams import (
    UPSTREAM_OPTIONS,
    upstreams_from,
    weights,
)

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["read", "shifted"], "default": "shifted"},
    "socket_path": {"type": "path", "default": "/run/haproxy/admin.sock"},
    "home": {"type": "path", "required": True},
    "fence": {"type": "int"},
    "state_path": {"type": "str", "default": "/var/lib/haproxy/server-state"},
    "config_path": {"type": "str", "default": "/etc/haproxy/haproxy.cfg"},
    "upstreams": {"type": "list", "elements": "dict", "default": [], "options": UPSTREAM_OPTIONS},
    "note": {"type": "dict", "default": {}},
    "probes": {"type": "list", "elements": "dict", "default": [], "options": PROBE_OPTIONS},
    "confirm_seconds": {"type": "float", "default": 15},
    "drain_seconds": {"type": "float", "default": 30},
    "answer_seconds": {"type": "float", "default": 5},
}
REQUIRED_IF = [("state", "shifted", ("fence",))]


def look(router: Router, params: dict[str, Any]) -> dict[str, Any]:
    probes = [endpoint(raw) for raw in params["probes"]]
    found = router.read(upstreams_from(params["upstreams"]))
    return {"changed": False, **found, "answers": [one.to_dict() for one in ask(probes)]}


def arrange(router: Router, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    upstreams = upstreams_from(params["upstreams"])
    probes = [endpoint(raw) for raw in params["probes"]]
    note = {**params["note"], "fence": params["fence"]}

    def confirm(deadline_seconds: float) -> list[dict[str, Any]]:
        # Close together: each answer names its version, and a rollback waits for the row.
        return [one.to_dict() for one in ask(probes, deadline_seconds=deadline_seconds, interval_seconds=0.02)]

    if check_mode:
        result = router.plan(upstreams, note).to_dict()
    else:
        with fenced(Path(params["home"]), params["fence"]):
            result = router.shift(upstreams, note, confirm, params["confirm_seconds"], params["drain_seconds"])
    texts = {"before": result.pop("before"), "after": result.pop("after")}
    headers = {"before_header": params["socket_path"], "after_header": params["socket_path"]}
    return {**result, "weights": weights(upstreams), "diff": {**texts, **headers}}


def answer(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    router = Router(talk(params["socket_path"], params["answer_seconds"]), params["home"], params["state_path"] or None)
    try:
        if params["state"] == "read":
            result = look(router, params)
            backends = sorted({one["backend"] for one in result["servers"]})
        else:
            result = arrange(router, params, check_mode)
            backends = [one["name"] for one in params["upstreams"]]
    except RunbookError as error:
        details = {"weights": {}, **error.details}
        if params["state"] == "shifted":
            details = {"confirmed": [], "restored": False, **details}
        return refusal(str(error), **details)
    except OSError as error:
        return refusal(f"a file of the router cannot be used: {error}")
    warnings = []
    if params["config_path"]:
        config = read_config(params["config_path"])
        problem = forgetful(config, params["config_path"], params["state_path"], backends)
        warnings += [problem] if problem else []
    if result["down"]:
        down = ", ".join(result["down"])
        warnings.append(f"HAProxy's own checks say that {down} is down, so it gets no traffic")
    return {**result, "warnings": warnings}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED_IF, supports_check_mode=True)
    give(module, answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
