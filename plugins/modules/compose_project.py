# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_project
short_description: Releases and slots of an application in Docker Compose
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Makes releases out of compose files, an environment and images, and runs one in each of two compose projects that
    stand beside each other, C(<project>-blue) and C(<project>-green).
  - Only the given services are run, one after the other. Data stores belong into a project of their own.
  - The files and the ids of the images are kept with the release, so that no tag that moves and no file that is changed
    later alters what it is.
  - The slot that takes the traffic is neither started nor stopped. Volumes are never removed.
attributes:
  check_mode:
    support: full
    description: Asks what runs, and the probes of a slot that seems to run the release; takes no lock, pulls nothing.
  diff_mode:
    support: full
    description: Shows the releases, or release, version, ports and states of the slot, before and after.
requirements:
  - Docker Engine and Docker Compose 2.24.4 or newer, as the plugin of its command line
options:
  state:
    description:
      - V(read) changes nothing and tells the releases, what runs in the slots, the fencing number and the disk space.
        What is wrong with the host is told in the result, it is not a failure.
      - V(staged), the release is to be there, whole, with its images.
      - V(started), the slot is to run O(release), every service proven by its probes. What failed is left as it is.
      - V(proven) changes nothing and fails unless the slot runs just O(release), every container and every probe.
      - V(stopped), the slot is to run nothing. Each service gets time to finish its connections first.
      - V(pruned), the releases of O(remove) are to be gone, and the images that only they had.
    type: str
    choices: [read, staged, started, proven, stopped, pruned]
    default: read
  home:
    description: Directory of the application on the target, with C(releases) and C(slots) below it.
    type: path
    required: true
  application:
    description: Name of the application.
    type: str
    required: true
  project:
    description: Beginning of the names of the compose projects. No other application of the Docker Engine may have it.
    type: str
    required: true
  fence:
    description: Fencing number of the run; a lower one than was seen before is refused. Needed unless O(state=read).
    type: int
  slot:
    description: The slot.
    type: str
    choices: [blue, green]
  live_slot:
    description: The slot that takes the traffic, empty for none. It is not touched.
    type: str
    default: ""
  only:
    description:
      - Names of the O(services) that a start or stop is about. The others of the slot are left alone.
      - A start then needs the slot to hold O(release) already.
    type: list
    elements: str
    default: []
  release:
    description: The release.
    type: dict
    suboptions:
      id:
        description: Its id, also the name of its directory.
        type: str
        required: true
      version:
        description: Its version, the tag of images that have none.
        type: str
        required: true
      digest:
        description: Digest of all that it is made of, for O(state=staged).
        type: str
  in_use:
    description: Ids of the releases that slots run; one of them is never made again.
    type: list
    elements: str
    default: []
  services:
    description: The services, in start order.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service in the compose files.
        type: str
        required: true
      image:
        description: The image, for O(state=staged). The version is its tag when it has neither tag nor digest.
        type: str
      container_port:
        description: Port that it listens on in its container, for O(state=staged).
        type: int
      environment:
        description: Environment variables, part of the release.
        type: dict
        default: {}
      secrets:
        description: Environment variables that are never shown, part of the release.
        type: dict
        default: {}
      port:
        description: Port on which it is published in the slot.
        type: int
      exclusive:
        description: Whether it may run in one slot only, for O(state=read).
        type: bool
        default: false
      ports:
        description: Port per slot, for O(state=read). Others that listen on one are told as C(busy).
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
        description: Seconds within which the container must run and the probes must pass.
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
  files:
    description: Names of the compose files, in order, for O(state=staged).
    type: list
    elements: str
    default: []
  contents:
    description: What is in each of O(files).
    type: list
    elements: str
    default: []
  variables:
    description: What C(${NAME}) in the compose files stands for, part of the release.
    type: dict
    default: {}
  addresses:
    description: IP addresses on which ports are published, besides 127.0.0.1.
    type: list
    elements: str
    default: []
  pull:
    description: When an image is pulled while a release is made.
    type: str
    choices: [missing, always, never]
    default: missing
  remove:
    description: Ids of the releases to remove. Those that are not there are passed over.
    type: list
    elements: str
    default: []
  keep:
    description: Ids that must stay. The task fails when one of them is in O(remove).
    type: list
    elements: str
    default: []
  command:
    description: Words that run the Docker command line, for example V([sudo, docker]).
    type: list
    elements: str
    default: [docker]
  log_lines:
    description: How many of the last lines of each service's output O(state=read) returns.
    type: int
    default: 0
  answer_seconds:
    description: Seconds that one answer of the Docker Engine may take, besides pulling, starting and stopping.
    type: float
    default: 30
  build_timeout_seconds:
    description: Seconds that making a release may take.
    type: float
    default: 600
  interval_seconds:
    description: Seconds between two tries of a probe.
    type: float
    default: 0.2
  wait_seconds:
    description: Seconds to wait for another change of the same O(home) to end.
    type: float
    default: 60
notes:
  - Environment variables of a container, secrets too, can be read by whoever may use the Docker Engine
    (C(docker inspect)), which is as good as root. They are in no argument list and in no file that others can read.
"""

EXAMPLES = r"""
- name: Look at the target
  signalbox.runbook.compose_project:
    state: read
    home: /srv/shop
    application: shop
    project: shop

- name: Run the new release in green, beside blue
  signalbox.runbook.compose_project:
    state: started
    home: /srv/shop
    application: shop
    project: shop
    fence: 12
    slot: green
    live_slot: blue
    release: {id: 1.5.0-0a1b2c3d, version: 1.5.0}
    services:
      - name: api
        port: 8002
        start_seconds: 30
        probes:
          - {name: api health, url: "http://127.0.0.1:{port}/health", expect: {status: ok}}
"""

RETURN = r"""
problem:
  description: Why the Docker Engine or Compose cannot be used, one sentence with the fix, usually empty.
  type: str
  returned: for O(state=read)
releases:
  description: The whole releases, oldest first, each with C(id), C(version), C(digest) and C(made_at).
  type: list
  elements: dict
  returned: for O(state=read)
foreign:
  description: Names below C(releases) that are no release of this collection.
  type: list
  elements: str
  returned: for O(state=read)
slots:
  description:
    - What each slot holds, C(release), C(version), C(running), C(healthy), C(exclusive), C(services), C(answers),
      C(busy) and C(problem), as M(signalbox.runbook.target_info) tells it.
    - Of each service the C(state) of its container, C(health), C(restarts), C(image), C(pid), C(since) and C(port).
  type: dict
  returned: for O(state=read)
fence:
  description: Highest fencing number seen, 0 for none.
  type: int
  returned: for O(state=read)
disk_free_bytes:
  description: Free space for this user on the file system of O(home).
  type: int
  returned: for O(state=read)
disk_total_bytes:
  description: Size of that file system.
  type: int
  returned: for O(state=read)
outcome:
  description: Whether the release was C(present), C(made), C(rebuilt), or its images were C(pulled) again.
  type: str
  returned: for O(state=staged)
images:
  description: Name and id of the image of each service.
  type: dict
  returned: for O(state=staged)
  sample: {api: "shop-api:1.5.0 sha256:6c0ef57e712f"}
same:
  description:
    - The digests and the id of each of these images.
    - Targets of one release must have one of them in common, otherwise nothing is started.
  type: dict
  returned: for O(state=staged)
answers:
  description: Results of the probes as of M(signalbox.runbook.probe_info), each with its C(service).
  type: list
  elements: dict
  returned: for O(state=started) and O(state=proven)
seconds:
  description: Seconds that it took.
  type: float
  returned: for O(state=started) and O(state=proven), on success
connections_cut:
  description: Connections that were still open when their service, or what the slot held before, was stopped.
  type: int
  returned: for O(state=started) and O(state=stopped), on success
log:
  description: Last lines of output by service, of those that were stopped or did not get healthy.
  type: dict
  returned: for O(state=stopped), and when a service did not get healthy
service:
  description: The service that failed.
  type: str
  returned: when a service did not get healthy
diagnosis:
  description: What is wrong with that service, the likely cause first, with C(name), C(kind), C(problem) and C(fix).
  type: list
  elements: dict
  returned: when a service did not get healthy
states:
  description: State of the container of each service started so far.
  type: dict
  returned: when a service did not get healthy
removed:
  description: Ids of the releases that were (in check mode, would be) removed.
  type: list
  elements: str
  returned: for O(state=pruned)
images_removed:
  description: Names of images that were removed.
  type: list
  elements: str
  returned: for O(state=pruned)
fenced:
  description: Whether the run was refused because its fencing number is older than one seen before.
  type: bool
  returned: when it was
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils import _compose
from ansible_collections.signalbox.runbook.plugins.module_utils._compose_made_of import texts
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import Docker
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._fence import fenced, read_fence
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import PROBE_OPTIONS
from ansible_collections.signalbox.runbook.plugins.module_utils._release import manifests, prune
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import SLOTS, predicted

SERVICE_OPTIONS = {
    "name": {"type": "str", "required": True},
    "image": {"type": "str"},
    "container_port": {"type": "int"},
    "environment": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "port": {"type": "int"},
    "ports": {"type": "dict", "options": {slot: {"type": "int", "required": True} for slot in SLOTS}},
    "exclusive": {"type": "bool", "default": False},
    "start_seconds": {"type": "float", "default": 60},
    "stop_seconds": {"type": "float", "default": 10},
    "drain_seconds": {"type": "float", "default": 10},
    "probes": {"type": "list", "elements": "dict", "default": [], "options": PROBE_OPTIONS},
}
ARGUMENTS = {
    "state": {
        "type": "str",
        "default": "read",
        "choices": ["read", "staged", "started", "proven", "stopped", "pruned"],
    },
    "home": {"type": "path", "required": True},
    "application": {"type": "str", "required": True},
    "project": {"type": "str", "required": True},
    "fence": {"type": "int"},
    "slot": {"type": "str", "choices": list(SLOTS)},
    "live_slot": {"type": "str", "default": ""},
    "release": {
        "type": "dict",
        "options": {
            "id": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "digest": {"type": "str"},
        },
    },
    "in_use": {"type": "list", "elements": "str", "default": []},
    "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE_OPTIONS},
    "only": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "str", "default": []},
    "contents": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "variables": {"type": "dict", "default": {}, "no_log": True},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "pull": {"type": "str", "default": "missing", "choices": ["missing", "always", "never"]},
    "remove": {"type": "list", "elements": "str", "default": []},
    "keep": {"type": "list", "elements": "str", "default": []},
    "command": {"type": "list", "elements": "str", "default": ["docker"]},
    "log_lines": {"type": "int", "default": 0},
    "answer_seconds": {"type": "float", "default": 30},
    "build_timeout_seconds": {"type": "float", "default": 600},
    "interval_seconds": {"type": "float", "default": 0.2},
    "wait_seconds": {"type": "float", "default": 60},
}


def slot_of(params: dict[str, Any], name: str, docker: Docker) -> _compose.ComposeSlot:
    return _compose.ComposeSlot(
        params["home"],
        params["application"],
        params["project"],
        name,
        docker,
        addresses=params["addresses"],
        run=params["fence"] or 0,
        interval_seconds=params["interval_seconds"],
    )


def tell(params: dict[str, Any]) -> dict[str, Any]:
    home = Path(params["home"])
    docker = Docker(params["command"], params["answer_seconds"])
    problem = docker.problem()
    slots = {
        name: slot_of(params, name, docker).survey(params["services"], not problem, params["log_lines"])
        for name in SLOTS
    }
    releases, foreign = manifests(home)
    disk = shutil.disk_usage(next(path for path in (home, *home.parents) if path.exists()))
    return {
        "changed": False,
        "problem": problem or next((slot["problem"] for slot in slots.values() if slot["problem"]), ""),
        "fence": read_fence(home),
        "releases": releases,
        "foreign": foreign,
        "slots": slots,
        "disk_free_bytes": disk.free,
        "disk_total_bytes": disk.total,
    }


@contextmanager
def changing(params: dict[str, Any], check_mode: bool) -> Iterator[tuple[int, ...]]:
    """The host's lock, as file descriptors that commands inherit; in check mode only what it would refuse."""
    home = Path(params["home"])
    if not check_mode:
        with fenced(home, params["fence"], params["wait_seconds"]) as lock:
            yield (lock,)
    elif params["fence"] < read_fence(home):
        raise RunbookError(
            f"fencing number {params['fence']} is older than {read_fence(home)}: it would be refused", fenced=True
        )
    else:
        yield ()


def staged(params: dict[str, Any], docker: Docker, check_mode: bool) -> dict[str, Any]:
    home = Path(params["home"])
    if len(params["files"]) != len(params["contents"]):
        raise RunbookError("contents must have one entry for each of files")
    keys = ("name", "image", "container_port", "environment", "secrets")
    spec = {
        **params["release"],
        **{key: params[key] for key in ("project", "in_use", "pull", "build_timeout_seconds")},
        "services": [
            {
                **{key: service[key] for key in keys},
                **{kind: texts(service[kind]) for kind in ("environment", "secrets")},
            }
            for service in params["services"]
        ],
        "files": [{"name": name, "content": text} for name, text in zip(params["files"], params["contents"])],
        "variables": texts(params["variables"]),
    }
    before = {"releases": [release["id"] for release in manifests(home)[0]]}
    result = _compose.stage(spec, home, docker, check_mode)
    after = {"releases": sorted({*before["releases"], params["release"]["id"]})}
    return {**result, "diff": {"before": {"releases": sorted(before["releases"])}, "after": after}}


def pruned(params: dict[str, Any], docker: Docker, check_mode: bool) -> dict[str, Any]:
    home = Path(params["home"])
    before = [release["id"] for release in manifests(home)[0]]
    result = prune(home, docker, params["project"], params["remove"], params["keep"], check_mode)
    after = [release_id for release_id in before if release_id not in result["removed"]]
    return {**result, "diff": {"before": {"releases": before}, "after": {"releases": after}}}


def held(slot: _compose.ComposeSlot) -> dict[str, Any]:
    info = slot.info()
    services = {name: {"port": one["port"], "state": one["state"]} for name, one in info["services"].items()}
    return {"slot": slot.name, "release": info["release"], "version": info["version"], "services": services}


def change(params: dict[str, Any], docker: Docker, check_mode: bool) -> dict[str, Any]:
    slot = slot_of(params, params["slot"], docker)
    before = held(slot)
    if params["state"] == "started":
        result = slot.start(params["release"], params["services"], params["live_slot"], check_mode, params["only"])
    elif params["state"] == "proven":
        return slot.prove(params["release"], params["services"])
    else:
        result = slot.stop(params["services"], params["live_slot"], check_mode, params["only"])
    after = predicted(params, before, result["changed"], "running") if check_mode else held(slot)
    return {**result, "diff": {"before": before, "after": after}}


def arrange(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    if params["state"] == "read":
        return tell(params)
    with changing(params, check_mode) as lock:
        docker = Docker(params["command"], params["answer_seconds"], keep_open=lock)
        if params["state"] == "staged":
            return staged(params, docker, check_mode)
        if params["state"] == "pruned":
            return pruned(params, docker, check_mode)
        return change(params, docker, check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[
            ("state", "staged", ("fence", "release", "services", "files", "contents")),
            ("state", "started", ("fence", "slot", "release", "services")),
            ("state", "proven", ("fence", "slot", "release", "services")),
            ("state", "stopped", ("fence", "slot")),
            ("state", "pruned", ("fence", "remove")),
        ],
        supports_check_mode=True,
    )
    try:
        result = arrange(module.params, module.check_mode)
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)
    except OSError as error:
        module.fail_json(msg=f"a file of the release or slot cannot be read or changed: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
