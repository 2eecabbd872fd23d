# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_upstream
short_description: Shift traffic between slots by weight in nginx, or read the weights
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Writes one include file with C(upstream) blocks, has nginx test the whole configuration, reloads nginx and proves
    the reload by asking through the router which version answers.
  - A file that nginx refuses, and a reload after which the router does not answer as expected, are undone before the
    module fails. Then the old content is active again.
  - Nothing but this file is written, so nginx may be configured by others.
  - Nothing is done when the file already says the same and the router answers as expected.
  - A run that was killed half-way is repaired by the next one, which reloads and proves again.
  - With O(state=read) it only reads the file and asks through the router, once. The file says what was last written.
    After a crash nginx may not have loaded it, so only the answers say where the traffic goes.
attributes:
  check_mode:
    support: full
    description: Compares the file, but neither asks the router nor takes the fence.
  diff_mode:
    support: full
    description: Shows the include file before and after.
options:
  state:
    description:
      - V(shifted) arranges the traffic and needs O(home), O(fence), O(upstreams) and O(probes).
      - V(read) changes nothing, and a probe that does not pass is a result, not a failure.
    type: str
    choices: [read, shifted]
    default: shifted
  path:
    description:
      - The include file. It must be absent, empty, or written by this collection.
      - Symbolic links are followed.
    type: path
    required: true
  home:
    description:
      - Directory of this collection on the router host, for the fence and for the content last proven.
      - Every include file needs its own.
    type: path
  fence:
    description: Fencing number of the run; a number lower than the highest seen is refused.
    type: int
  command:
    description: Words that run the nginx which reads the file, for example V([sudo, nginx]).
    type: list
    elements: str
    default: [nginx]
  pid_path:
    description:
      - File with the process number of the nginx master, as this host sees it.
      - When given, the reload counts as done only when every worker that accepts connections is new. This proves a
        reload that no version shows. Where the processes cannot be seen, for example in a container, the probes are
        asked once more, one second after the reload.
    type: path
  upstreams:
    description: All upstreams of the file; others are removed from it.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name for C(proxy_pass http://NAME).
        type: str
        required: true
      members:
        description: Where its slots answer. Without a member, or without a weight above 0, it answers 502.
        type: list
        elements: dict
        default: []
        suboptions:
          address:
            description: IP address, or a host name that the router can resolve.
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
            description: Share of the traffic relative to the other members; 0 is none.
            type: int
            required: true
  note:
    description: Kept in a comment of the file and given back by V(read), for example release and version per slot.
      Readable by everybody.
    type: dict
    default: {}
  probes:
    description: Asked through the router. For V(shifted) all must pass after the reload; V(read) asks each once.
    type: list
    elements: dict
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
    description: Seconds from the reload within which the probes must pass.
    type: float
    default: 15
"""

EXAMPLES = r"""
- name: Send a tenth of the traffic to green
  signalbox.runbook.nginx_upstream:
    path: /etc/nginx/conf.d/shop.conf
    home: /var/lib/runbook/shop
    fence: 12
    pid_path: /run/nginx.pid
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
  signalbox.runbook.nginx_upstream:
    state: read
    path: /etc/nginx/conf.d/shop.conf
    probes:
      - name: shop through the router
        url: http://127.0.0.1/version
        version_path: version
  register: router
"""

RETURN = r"""
weights:
  description:
    - Weight per slot that the file gives, the highest of its members.
    - After a failure, the weights that were put back.
  type: dict
  returned: always
  sample: {blue: 90, green: 10}
confirmed:
  description: Results of the probes, last try each; empty in check mode.
  type: list
  elements: dict
  returned: when O(state) is V(shifted)
restored:
  description: Whether the old content was put back and is active.
  type: bool
  returned: when O(state) is V(shifted)
answers:
  description: One result per probe.
  type: list
  elements: dict
  returned: when O(state) is V(read)
below:
  description: Members that get less of the traffic than others of their slot; at rest there are none.
  type: list
  elements: str
  returned: when O(state) is V(read)
exists:
  description: Whether the file exists.
  type: bool
  returned: when O(state) is V(read)
ours:
  description: Whether it was written by this collection.
  type: bool
  returned: when O(state) is V(read)
intact:
  description: Whether it is as it was written; V(false) when it was edited by hand, absent or not ours.
  type: bool
  returned: when O(state) is V(read)
note:
  description: What the last shift noted in the file.
  type: dict
  returned: when O(state) is V(read)
upstreams:
  description: Upstreams of the file with their members.
  type: list
  elements: dict
  returned: when O(state) is V(read)
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._answer import give, refusal
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._fence import fenced
from ansible_collections.signalbox.runbook.plugins.module_utils._nginx import Router, inspect
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import PROBE_OPTIONS, Endpoint, ask, endpoint
from ansible_collections.signalbox.runbook.plugins.module_utils._upstreams import (
    UPSTREAM_OPTIONS,
    upstreams_from,
    weights,
)

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["read", "shifted"], "default": "shifted"},
    "path": {"type": "path", "required": True},
    "home": {"type": "path"},
    "fence": {"type": "int"},
    "command": {"type": "list", "elements": "str", "default": ["nginx"]},
    "pid_path": {"type": "path"},
    "upstreams": {"type": "list", "elements": "dict", "options": UPSTREAM_OPTIONS},
    "note": {"type": "dict", "default": {}},
    "probes": {"type": "list", "elements": "dict", "options": PROBE_OPTIONS},
    "confirm_seconds": {"type": "float", "default": 15},
}
REQUIRED_IF = [("state", "shifted", ("home", "fence", "upstreams", "probes"))]


def look(path: str, probes: list[Endpoint]) -> dict[str, Any]:
    return {"changed": False, **inspect(path), "answers": [one.to_dict() for one in ask(probes)]}


def arrange(params: dict[str, Any], probes: list[Endpoint], check_mode: bool) -> dict[str, Any]:
    upstreams = upstreams_from(params["upstreams"])
    note = {**params["note"], "fence": params["fence"]}
    router = Router(params["path"], params["home"], params["command"], params["pid_path"])

    def confirm(deadline_seconds: float) -> list[dict[str, Any]]:
        # Close together: each answer names its version, and a rollback waits for the row.
        return [one.to_dict() for one in ask(probes, deadline_seconds=deadline_seconds, interval_seconds=0.005)]

    if check_mode:
        plan = router.plan(upstreams, note)
        result = plan.to_dict()
    else:
        with fenced(Path(params["home"]), params["fence"]):
            result = router.shift(upstreams, note, confirm, params["confirm_seconds"])
    texts = {"before": result.pop("before"), "after": result.pop("after")}
    headers = {"before_header": params["path"], "after_header": params["path"]}
    return {**result, "weights": weights(upstreams), "diff": {**texts, **headers}}


def answer(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    reading = params["state"] == "read"
    warnings = []
    if not reading and not params["probes"] and not params["pid_path"]:
        warnings.append(
            "neither probes nor pid_path is given: nothing proves that nginx took the new configuration over"
        )
    nothing: dict[str, Any] = {} if reading else {"confirmed": [], "restored": False, "weights": {}}
    try:
        probes = [endpoint(raw) for raw in params["probes"] or ()]
        told = look(params["path"], probes) if reading else arrange(params, probes, check_mode)
    except RunbookError as error:
        told = refusal(str(error), **{**nothing, **error.details})
    except OSError as error:
        wanted = "read" if reading else "changed"
        told = refusal(f"a file of the router cannot be {wanted}: {error}", **nothing)
    return {**told, "warnings": warnings}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED_IF, supports_check_mode=True)
    give(module, answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
