# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slot
short_description: Start or stop the release that a slot of a host runs
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Runs a staged release in the slot V(blue) or V(green), beside what the other slot runs, as processes of
    supervisord or units of systemd.
  - The services are started in the given order; each must pass its probes before the next one is started, and its
    process must not have ended or been restarted meanwhile. The waiting ends as soon as the process does.
  - Nothing is done when the slot already runs this release on these ports and every probe passes.
  - A service with an image is a container that the process manager runs in the foreground, of just the image of the
    release. One that was left behind, because its command line was killed, is removed.
  - The packages of a release (O(signalbox.runbook.release#module:services[].artifact.apt)) are installed first,
    from the files of the release, unless they are, and held.
  - After a failure the slot is left as it is, to be looked at; stop it with O(state=stopped).
  - A stop is graceful. The last service is the first to go; it gets time to finish its connections, then SIGTERM, then
    SIGKILL.
  - The slot that takes the traffic is neither started nor stopped.
attributes:
  check_mode:
    support: full
    description: Asks what runs, and the probes of a slot that seems to run the release; takes no lock.
  diff_mode:
    support: full
    description: Shows release, version, ports and process states of the slot before and after.
extends_documentation_fragment: [signalbox.runbook.container]
options:
  home:
    description: Directory of the application on the target, with C(releases), C(slots) and C(log) below it.
    type: path
    required: true
  fence:
    description: Fencing number of the run; a number lower than the highest seen is refused.
    type: int
    required: true
  application:
    description: Name of the application. Programs and units are called C(application-service-slot).
    type: str
    required: true
  slot:
    description: The slot.
    type: str
    choices: [blue, green]
    required: true
  state:
    description:
      - V(started), the slot is to run O(release). V(stopped), it is to run nothing.
      - V(proven) changes nothing and fails unless the slot runs just O(release), every process and every probe.
    type: str
    choices: [started, proven, stopped]
    default: started
  live_slot:
    description: The slot that takes the traffic, empty for none. It is not touched.
    type: str
    default: ""
  release:
    description: The release to run. Needed unless O(state=stopped).
    type: dict
    suboptions:
      id:
        description: Its name below C(releases).
        type: str
        required: true
      version:
        description: Its version, for the record of the slot.
        type: str
        required: true
  only:
    description:
      - Names of the O(services) that this is about. The others of the slot are left alone, whether they run or not.
      - A start then needs the slot to hold O(release) already.
    type: list
    elements: str
    default: []
  services:
    description:
      - The services in the order in which they start. Needed for O(state=started).
      - A stop ends what the slot has been started with, whether it is named here or not. What is named is given the
        O(services[].drain_seconds) of now.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      port:
        description:
          - The port of the service in this slot; its command finds it in the variable E(PORT).
          - The port of a container is published there.
        type: int
        required: true
      start_seconds:
        description: Seconds within which the probes must pass, after the installation of its package.
        type: float
        default: 60
      stop_seconds:
        description: Seconds from SIGTERM to SIGKILL.
        type: float
        default: 10
      drain_seconds:
        description: Seconds that open connections get to finish before the service is stopped.
        type: float
        default: 10
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
  stable_seconds:
    description: Seconds that a process must have run without a restart to count as running. For O(manager=systemd).
    type: float
    default: 3
  container_prefix:
    description: Beginning of the names of containers, which go on with C(-service-slot). By default O(application).
    type: str
    default: ""
  container_addresses:
    description: IP addresses of the target on which the ports of containers are published, besides 127.0.0.1.
    type: list
    elements: str
    default: []
  user:
    description:
      - User that runs the services, by default that of the process manager. That one runs the command line of
        containers, too.
      - The release must have been made for this user.
    type: str
    default: ""
  interval_seconds:
    description: Seconds between two tries of a probe.
    type: float
    default: 0.2
  wait_seconds:
    description: Seconds to wait for another change of the same O(home) to end.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Run the new release in green, beside blue
  signalbox.runbook.slot:
    home: /srv/shop
    fence: 12
    application: shop
    slot: green
    live_slot: blue
    release: {id: 1.5.0-0a1b2c3d, version: 1.5.0}
    services:
      - name: api
        port: 8002
        start_seconds: 30
        probes:
          - {name: api health, url: "http://127.0.0.1:{port}/health", expect: {status: ok}}
    supervisor_socket: /run/supervisor.sock
    supervisor_conf_dir: /etc/supervisor/conf.d

- name: The same as a systemd unit of its own user
  signalbox.runbook.slot:
    home: /srv/shop
    fence: 12
    application: shop
    slot: green
    live_slot: blue
    release: {id: 1.5.0-0a1b2c3d, version: 1.5.0}
    services:
      - {name: api, port: 8002}
    manager: systemd
    stable_seconds: 5
    user: shop

- name: Stop what blue runs
  signalbox.runbook.slot:
    home: /srv/shop
    fence: 12
    application: shop
    slot: blue
    live_slot: green
    state: stopped
    supervisor_socket: /run/supervisor.sock
    supervisor_conf_dir: /etc/supervisor/conf.d
"""

RETURN = r"""
answers:
  description: Results of the probes as of M(signalbox.runbook.probe_info), each with its C(service).
  type: list
  elements: dict
  returned: unless O(state=stopped)
seconds:
  description: Seconds that it took.
  type: float
  returned: unless O(state=stopped), on success
connections_cut:
  description: Connections that were still open when their service, or what the slot held before, was stopped.
  type: int
  returned: on success, unless O(state=proven)
  sample: 0
log:
  description:
    - Last lines of output by service, of those that were stopped.
    - After a failed start, what each service said since it was started.
  type: dict
  returned: for O(state=stopped), and when a service did not get healthy
  sample: {api: [listening on 8002]}
service:
  description: The service that failed.
  type: str
  returned: when a service did not get healthy or did not end
diagnosis:
  description: What is wrong with that service, the likely cause first, with C(name), C(kind), C(problem) and C(fix).
  type: list
  elements: dict
  returned: when a service did not get healthy
states:
  description: State of each service started so far, in the words of supervisord.
  type: dict
  returned: when a service did not get healthy
  sample: {api: BACKOFF}
ports:
  description: The ports that others listen on, one sentence each.
  type: list
  elements: str
  returned: when a port is taken
fenced:
  description: Whether the run was refused because its fencing number is older than one seen before.
  type: bool
  returned: when it was
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._answer import give, refusal
from ansible_collections.signalbox.runbook.plugins.module_utils._apt import keeping_open
from ansible_collections.signalbox.runbook.plugins.module_utils._container import CONTAINER_OPTIONS, Containers, engine
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._fence import fenced, read_fence
from ansible_collections.signalbox.runbook.plugins.module_utils._managers import (
    MANAGER_OPTIONS,
    MANAGER_REQUIRED,
    conf_dir_of,
    manager_of,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import PROBE_OPTIONS
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import SLOTS, Slot, predicted

RELEASE_OPTIONS = {
    "id": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
}
SERVICE_OPTIONS = {
    "name": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "start_seconds": {"type": "float", "default": 60},
    "stop_seconds": {"type": "float", "default": 10},
    "drain_seconds": {"type": "float", "default": 10},
    "probes": {"type": "list", "elements": "dict", "default": [], "options": PROBE_OPTIONS},
}


ARGUMENTS: dict[str, Any] = {
    "home": {"type": "path", "required": True},
    "fence": {"type": "int", "required": True},
    "application": {"type": "str", "required": True},
    "slot": {"type": "str", "required": True, "choices": list(SLOTS)},
    "state": {"type": "str", "default": "started", "choices": ["started", "proven", "stopped"]},
    "live_slot": {"type": "str", "default": ""},
    "release": {"type": "dict", "options": RELEASE_OPTIONS},
    "services": {"type": "list", "elements": "dict", "options": SERVICE_OPTIONS},
    "only": {"type": "list", "elements": "str", "default": []},
    **MANAGER_OPTIONS,
    **CONTAINER_OPTIONS,
    "container_addresses": {"type": "list", "elements": "str", "default": []},
    "user": {"type": "str", "default": ""},
    "interval_seconds": {"type": "float", "default": 0.2},
    "wait_seconds": {"type": "float", "default": 60},
}
REQUIRED_IF = [
    MANAGER_REQUIRED,
    *(("state", state, ("release", "services")) for state in ("started", "proven")),
]


def held(slot: Slot) -> dict[str, Any]:
    info = slot.info()
    services = {name: {"port": one["port"], "state": one["state"]} for name, one in info["services"].items()}
    return {"slot": slot.name, "release": info["release"], "version": info["version"], "services": services}


def change(slot: Slot, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    before = held(slot)
    services = params["services"] or []
    if params["state"] == "started":
        result = slot.start(params["release"], services, params["live_slot"], check_mode, params["only"])
    elif params["state"] == "proven":
        result = slot.prove(params["release"], services)
    else:
        result = slot.stop(services, params["live_slot"], check_mode, params["only"])
    after = predicted(params, before, result["changed"], "RUNNING") if check_mode else held(slot)
    return {**result, "diff": {"before": before, "after": after}}


def arrange(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    home = Path(params["home"])
    slot = Slot(
        home,
        params["application"],
        params["slot"],
        manager_of(params),
        conf_dir_of(params),
        user=params["user"],
        interval_seconds=params["interval_seconds"],
        containers=Containers(
            str(home),
            params["container_prefix"] or params["application"],
            engine(params["container_command"]),
            params["container_addresses"],
        ),
    )
    if check_mode:
        if params["fence"] < read_fence(home):
            raise RunbookError(
                f"fencing number {params['fence']} is older than {read_fence(home)}: it would be refused", fenced=True
            )
        return change(slot, params, check_mode)
    with fenced(home, params["fence"], params["wait_seconds"]) as lock:
        slot.run = keeping_open([lock])
        slot.containers.docker.keep_open = (lock,)
        return change(slot, params, check_mode)


def answer(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    try:
        return arrange(params, check_mode)
    except RunbookError as error:
        return refusal(str(error), **error.details)
    except OSError as error:
        return refusal(f"a file of the slot cannot be read or changed: {error}")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED_IF, supports_check_mode=True)
    give(module, answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
