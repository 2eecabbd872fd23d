# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: target_info
short_description: Tell everything about a target in one call
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Tells the releases, what runs in the slots and whether it is healthy, the fencing number and the disk space.
  - Nothing is changed. What is wrong with the target is told in the result, it is not a failure.
attributes:
  check_mode:
    support: full
    description: The module only reads.
  diff_mode:
    support: none
    description: The module only reads.
extends_documentation_fragment: [signalbox.runbook.container]
options:
  home:
    description: Directory of the application on the target. It need not exist yet.
    type: path
    required: true
  application:
    description: Name of the application.
    type: str
    required: true
  manager:
    description: What runs the processes on this host.
    type: str
    choices: [supervisor, systemd]
    default: supervisor
  supervisor_socket:
    description: Unix socket of supervisord. Needed for O(manager=supervisor).
    type: path
  supervisor_conf_dir:
    description: Directory that supervisord includes C(*.conf) files from. Needed for O(manager=supervisor).
    type: path
  systemd_unit_dir:
    description: Directory that systemd reads units from, which survives a boot. For O(manager=systemd).
    type: path
    default: /etc/systemd/system
  links:
    description: Whether to tell where the links C(current) and C(previous) lead.
    type: bool
    default: false
  stable_seconds:
    description: Seconds that a process must have run without a restart to count as running. For O(manager=systemd).
    type: float
    default: 3
  services:
    description: The services whose probes are asked, in every slot in which their process is C(RUNNING).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      exclusive:
        description: Whether it may run in one slot only.
        type: bool
        default: false
      ports:
        description:
          - Port of the service per slot. Others that listen on one are told as C(busy).
          - A running process is asked on the port that it was started with.
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
      probes:
        description: What proves the service, asked on the target itself.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: What the probe is called in messages; its URL when left out.
            type: str
          url:
            description: Address to ask; V({port}) in it becomes the port of the service in the slot.
            type: str
            required: true
          method:
            description:
              - HTTP method.
              - An application that rejects V(HEAD) with 405 or 501 is asked again with V(GET).
            type: str
            choices: [GET, HEAD, OPTIONS]
            default: GET
          status:
            description: HTTP statuses that pass.
            type: list
            elements: int
            default: [200]
          expect:
            description:
              - Dotted JSON paths of the body and the values that they must have, for example V(checks.db.status) or
                V(items.0.id).
              - The part V(*) stands for every member of a list or dictionary, of which there must be at least one.
              - Types count, the text V("1"), the number V(1) and V(true) differ.
            type: dict
            default: {}
          body:
            description: Regular expression that must be found in the body.
            type: str
          headers:
            description:
              - Request headers, for example V(Host) for a virtual server.
              - V(Authorization) and V(Cookie) are refused here, give them in O(services[].probes[].secret_headers).
            type: dict
            default: {}
          secret_headers:
            description: Request headers that are never shown, for example V(Authorization).
            type: dict
            default: {}
          expect_headers:
            description: Answer headers, in any case, and the regular expressions that must be found in them.
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
            description:
              - Dotted JSON path of the version in the body; empty when the whole body is the version.
              - Given without a version, the version that answers is reported as C(observed).
            type: str
            default: ""
          within_ms:
            description: Milliseconds within which the answer must be complete, name resolution and connection included.
            type: int
          successes:
            description: How many answers in a row must pass, each on a new connection. A failure starts the row again.
            type: int
            default: 1
          timeout_seconds:
            description: Seconds one request may take in all.
            type: float
            default: 5
          validate_certs:
            description: Whether the TLS certificate must be trusted and fit the name.
            type: bool
            default: true
          ca_path:
            description: File or directory of the certificate authorities to trust instead of the system's.
            type: path
  log_lines:
    description: How many of the last lines of each service's output to return.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Look at the target
  signalbox.runbook.target_info:
    home: /srv/shop
    application: shop
    supervisor_socket: /run/supervisor.sock
    supervisor_conf_dir: /etc/supervisor/conf.d
    services:
      - name: api
        ports: {blue: 8001, green: 8002}
        probes:
          - {name: api health, url: "http://127.0.0.1:{port}/health"}
  register: target
"""

RETURN = r"""
fence:
  description: Highest fencing number seen, 0 for none.
  type: int
  returned: success
releases:
  description: The whole releases, oldest first, each with C(id), C(version), C(digest) and C(made_at).
  type: list
  elements: dict
  returned: success
foreign:
  description: Names below C(releases) that are no release of this collection.
  type: list
  elements: str
  returned: success
slots:
  description: What each slot holds.
  type: dict
  returned: success
  contains:
    blue:
      description: The slot V(blue).
      type: dict
      returned: success
      contains: &slot
        release:
          description: Id of the release, empty for none.
          type: str
          returned: success
        version:
          description: Its version.
          type: str
          returned: success
        running:
          description: Whether all of its processes are C(RUNNING).
          type: bool
          returned: success
        healthy:
          description: Whether all are running and every probe passes.
          type: bool
          returned: success
        services:
          description:
            - C(state), C(pid), C(since) and C(port) by service.
            - The state is that of supervisord, or V(ABSENT) when it does not know the process, or V(UNKNOWN) when it
              does not answer.
          type: dict
          returned: success
        exclusive:
          description: Whether each service that may run in one slot only runs in this one. The others are C(running).
          type: dict
          returned: success
          sample: {mailer: true}
        answers:
          description:
            - Results of the probes as of M(signalbox.runbook.probe_info), each with its C(service).
            - A failed one of the kind C(package) for each package of apt that is not the one of the release, or that is
              not held.
            - A failed one of the kind C(container) for each container that is not the one that was started, or runs
              although what started it has ended.
          type: list
          elements: dict
          returned: success
        busy:
          description: Ports of the slot that others listen on, one sentence each.
          type: list
          elements: str
          returned: success
        problem:
          description: Why the slot cannot be told about, usually empty.
          type: str
          returned: success
        log:
          description: Last lines of output by service.
          type: dict
          returned: when O(log_lines) is above 0
    green:
      description: The slot V(green).
      type: dict
      returned: success
      contains: *slot
manager:
  description: Whether the process manager can be used (C(ok)), its C(name), its C(version), and the C(problem) if not.
  type: dict
  returned: success
  sample: {name: systemd, ok: true, version: "252", problem: ""}
supervisor:
  description: The same as RV(manager).
  type: dict
  returned: when O(manager=supervisor)
  sample: {name: supervisor, ok: true, version: 4.3.0, problem: ""}
links:
  description:
    - The releases that the links C(current) and C(previous) below O(home) lead to, each empty where there is none.
    - The C(problem) when one of them is no link of ours.
  type: dict
  returned: when O(links)
  sample: {current: 1.5.0-0a1b2c3d, previous: 1.4.0-77aa01c4, problem: ""}
disk_free_bytes:
  description: Free space for this user on the file system of O(home).
  type: int
  returned: success
disk_total_bytes:
  description: Size of that file system.
  type: int
  returned: success
"""

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._answer import give, refusal
from ansible_collections.signalbox.runbook.plugins.module_utils._container import COMMAND_OPTION, Containers, engine
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._fence import read_fence
from ansible_collections.signalbox.runbook.plugins.module_utils._links import read_links
from ansible_collections.signalbox.runbook.plugins.module_utils._managers import (
    MANAGER_OPTIONS,
    MANAGER_REQUIRED,
    conf_dir_of,
    manager_of,
    manager_state,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import PROBE_OPTIONS
from ansible_collections.signalbox.runbook.plugins.module_utils._release import manifests
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import SLOTS, Slot

SERVICE_OPTIONS = {
    "name": {"type": "str", "required": True},
    "exclusive": {"type": "bool", "default": False},
    "ports": {"type": "dict", "options": {slot: {"type": "int", "required": True} for slot in SLOTS}},
    "probes": {"type": "list", "elements": "dict", "default": [], "options": PROBE_OPTIONS},
}


ARGUMENTS: dict[str, Any] = {
    "home": {"type": "path", "required": True},
    "application": {"type": "str", "required": True},
    **MANAGER_OPTIONS,
    "container_command": COMMAND_OPTION,
    "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE_OPTIONS},
    "log_lines": {"type": "int", "default": 0},
    "links": {"type": "bool", "default": False},
}
REQUIRED_IF = [MANAGER_REQUIRED]


def told_links(home: Path) -> dict[str, str]:
    try:
        return {**read_links(home), "problem": ""}
    except RunbookError as error:
        return {"current": "", "previous": "", "problem": str(error)}


def tell(params: dict[str, Any]) -> dict[str, Any]:
    home = Path(params["home"])
    manager, conf_dir = manager_of(params), conf_dir_of(params)
    state = manager_state(manager, conf_dir)
    answering = bool(state["version"])
    containers = Containers(str(home), params["application"], engine(params["container_command"]))
    slots = {name: Slot(home, params["application"], name, manager, conf_dir, containers=containers) for name in SLOTS}
    names = [one["name"] for one in params["services"]]
    if state["ok"]:
        problem = next(filter(None, (slot.refused(names) for slot in slots.values())), "")
        state.update(ok=not problem, problem=problem)
    told = {name: slot.survey(params["services"], answering, params["log_lines"]) for name, slot in slots.items()}
    if state["ok"]:
        problem = next(filter(None, (one["problem"] for one in told.values())), "")
        state.update(ok=not problem, problem=problem)
    releases, foreign = manifests(home)
    disk = shutil.disk_usage(next(path for path in (home, *home.parents) if path.exists()))
    return {
        "changed": False,
        "fence": read_fence(home),
        "releases": releases,
        "foreign": foreign,
        "slots": told,
        "manager": state,
        **({"links": told_links(home)} if params["links"] else {}),
        **({"supervisor": state} if manager.kind == "supervisor" else {}),
        "disk_free_bytes": disk.free,
        "disk_total_bytes": disk.total,
    }


def answer(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    try:
        return tell(params)
    except RunbookError as error:
        return refusal(str(error), **error.details)
    except PermissionError as error:
        return refusal(f"{error.filename} may not be read by this user: set ansible_become, or connect as its owner")
    except OSError as error:
        return refusal(f"a file of the target cannot be read: {error}")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED_IF, supports_check_mode=True)
    give(module, answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
