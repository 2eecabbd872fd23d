# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application model: every rule that an argument specification can't say, and what follows from the model.

Pure functions over checked values. Every problem is one sentence that begins with the key's path.
Private: may change at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _apt, _triggers
from ansible_collections.signalbox.runbook.plugins.module_utils._compose_made_of import digest, texts
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import CLIENT
from ansible_collections.signalbox.runbook.plugins.module_utils._reality import IN_PLACE
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import SHOWN, Problems, Spec, check, closest

Model = dict[str, Any]

SLOTS = ("blue", "green")
# What makes a release; a rollback uses the one that was made and asks for none of these.
RELEASE_KEYS = ("artifact", "command", "image", "environment", "secrets", "files")
CODE: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {  # runtime to what it needs, and what is not for it
    "host": (
        {
            "artifact": "The code, or an image in its place",
            "command": "Shell words that start the service in the foreground",
        },
        ("container_port",),
    ),
    "compose": ({"image": "The image, for example registry.example.com/shop/api"}, ("artifact", "command", "files")),
    "kubernetes": ({"image": "The image, for example registry.example.com/shop/api"}, ("artifact", "container_port")),
}
RESERVED = ("PORT", "SLOT", "RELEASE", "DEPLOYED_VERSION", "DEPLOYED_COMMIT", "DEPLOYED_AT")

# What canary does unless app_steps says otherwise: the usual three steps of progressive delivery.
CANARY = (
    {"weight": 10, "watch_seconds": None, "hold": False},
    {"weight": 50, "watch_seconds": None, "hold": False},
    {"weight": 100, "watch_seconds": None, "hold": False},
)
# Runtimes in which every instance has a network address of its own: one port does for both slots.
OWN_ADDRESSES = ("kubernetes",)
# Settings of a runtime that are part of a release, because what runs is made of them.
RELEASE_SETTINGS = {
    "kubernetes": (
        "runtime_kubernetes_replicas",
        "runtime_kubernetes_autoscaling",
        "runtime_kubernetes_resources",
        "runtime_kubernetes_services",
        "runtime_kubernetes_files_path",
    )
}

SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie")

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_URL = re.compile(r"https?://[^/\s?#]+(/[^\s?#]*)?\Z")
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?\s*(===?\s*[^*,\s]+|@\s*\S+)\Z")
_IMAGE = re.compile(r"[a-zA-Z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?\Z", re.ASCII)
_PLACEHOLDER = re.compile(r"(change[-_ ]?me|todo|fixme|xxx+|<[^>]*>|your[-_ ].*|placeholder|\.\.\.)\Z", re.IGNORECASE)


def load(
    values: Mapping[str, Any], specs: Mapping[str, Mapping[str, Spec]], verb: str, where: str = ""
) -> tuple[Model, Problems]:
    """The checked model of one host, and all that is wrong with it.

    ``specs`` maps a prefix (``app_``) to the options of the role that documents it. Variables with a known
    prefix that no role knows are refused: a misspelt threshold would otherwise be a silent default.
    """
    problems = Problems()
    model: Model = {}
    for prefix, options in specs.items():
        own = {key: value for key, value in values.items() if key.startswith(prefix)}
        if prefix == "app_" and verb != "deploy":
            options = _without_release(options)
        model.update(check(own, options, "", problems))
    if not problems:
        _triggers.settle(model, specs.get("watch_", {}), problems)
        _rules(model, verb, problems)
    _mask(problems, values.get("app_services"))
    if where:
        problems[:] = [f"{problem} (on {where})" for problem in problems]
    return model, problems


def _mask(problems: Problems, services: Any) -> None:
    """A secret that is in a wrong place too, where values are quoted, is not."""
    given = (
        [s.get("secrets") for s in services if isinstance(s, Mapping)] if isinstance(services, (list, tuple)) else []
    )
    for word in [str(value) for secrets in given if isinstance(secrets, Mapping) for value in secrets.values()]:
        quoted = repr(word)[1:-1]
        for text in (word, quoted, quoted[:SHOWN]):
            if len(text) >= 8 and not _PLACEHOLDER.match(text):  # shorter ones are words of our own sentences too
                problems[:] = [problem.replace(text, "***") for problem in problems]


def _without_release(options: Mapping[str, Spec]) -> dict[str, Spec]:
    services = dict(options["app_services"])
    services["options"] = {
        key: {**spec, "required": False} if key in RELEASE_KEYS else spec for key, spec in services["options"].items()
    }
    return {**options, "app_services": services}


# -- rules of one host ------------------------------------------------------------------------------------------


def _rules(model: Model, verb: str, problems: Problems) -> None:
    for key in ("app_name", "app_environment"):
        if not _NAME.match(model[key]):
            problems.say(key, f"{model[key]!r} must be lower-case letters, digits and hyphens, a letter first")
    if verb == "deploy":
        check_version(model["app_version"], problems)
    _backends(model, problems)
    _store(model, problems)
    for key in ("app_home", "app_state_dir"):
        if model[key] and not model[key].startswith("/"):
            problems.say(key, f"{model[key]!r} must be an absolute path")
    for key in ("app_url", "app_router_url"):
        _url(model[key], key, problems)
    for key, least in (
        ("app_keep_releases", 1),
        ("app_lease_ttl_seconds", 10),
        ("app_lease_wait_seconds", 0),
        ("app_slot_port_offset", 1),
        ("watch_seconds", 0),
        ("watch_interval_seconds", 0.1),
        ("watch_window_seconds", 0.1),
        ("watch_minimum_requests", 1),
        ("watch_failure_limit", 0),
        ("watch_p95_ms", 1),
        ("accounting_requests_per_second", 0),
        ("accounting_connections", 1),
        ("accounting_timeout_seconds", 0.1),
    ):
        _least(model.get(key), least, key, problems)
    rate = model.get("watch_error_rate_percent")
    if rate is not None and not 0 <= rate <= 100:
        problems.say("watch_error_rate_percent", f"must be 0 to 100 percent, not {rate:g}")
    unseen = not model.get("accounting_requests_per_second", 1) and _triggers.sees_requests(model)
    if model.get("watch_seconds") and unseen:
        problems.say("accounting_requests_per_second", "is 0, so a watch would see no data; set watch_seconds to 0 too")
    _strategy(model, problems)
    if model["app_runtime"] == "kubernetes":
        _cluster(model, verb, problems)
    _services(model, verb, problems)


def _backends(model: Model, problems: Problems) -> None:
    runtime, router = model["app_runtime"], model["app_router"]
    if (runtime == "kubernetes") != (router == "kubernetes"):
        problems.say("app_router", f"is {router}, but app_runtime is {runtime}; kubernetes goes with kubernetes only")
    if runtime != "kubernetes":
        if not model["app_home"]:
            problems.say("app_home", "is missing; give Directory of the application on a target or router host")
        return
    known = [service["name"] for service in model["app_services"]]
    for prefix in ("runtime", "router"):
        key = f"{prefix}_kubernetes_services"
        for name in model.get(key) or {}:
            if name not in known:
                problems.say(f"{key}.{name}", f"is no service{closest(name, known)}")
    if model["app_strategy"] not in ("blue_green", "canary"):
        problems.say(
            "app_strategy",
            f"{model['app_strategy']} goes from host to host, and a namespace is one; use blue_green or canary",
        )


def _store(model: Model, problems: Problems) -> None:
    kept = model["app_state_store"] == "kubernetes"
    if not kept and not model["app_state_dir"]:
        problems.say("app_state_dir", "is missing; give Directory of the journal and the lease on the state host")
    if not kept and model["app_runtime"] != "kubernetes":
        return
    why = "" if model["app_runtime"] == "kubernetes" else ", because app_state_store is kubernetes"
    for key, what in (
        ("runtime_kubernetes_context", "context of the kubeconfig; the current one is never taken"),
        ("runtime_kubernetes_namespace", "namespace; that of the context is never taken"),
    ):
        if not model.get(key):
            problems.say(key, f"is missing{why}; name the {what}")


def store(model: Model) -> dict[str, Any]:
    """Where the journal is, as its module is told."""
    if model["app_state_store"] == "directory":
        return {"directory": model["app_state_dir"]}
    words = ("context", "namespace", "expected_server", "kubeconfig", "kubectl", "request_seconds")
    named = {"application": model["app_name"], "environment": model["app_environment"]}
    return {**{word: model[f"runtime_kubernetes_{word}"] for word in words}, **named}


def _cluster(model: Model, verb: str, problems: Problems) -> None:
    """What Kubernetes shares traffic and sets numbers of replicas by."""
    _least(model["router_kubernetes_scale_seconds"], 1, "router_kubernetes_scale_seconds", problems)
    within = model["router_kubernetes_share_within_percent"]
    if not 0 <= within < 50:
        problems.say("router_kubernetes_share_within_percent", f"must be 0 to 50 percentage points, not {within:g}")
    parted = any(step["weight"] < 100 for step in model["app_steps"] or ())
    by_ingress = model["router_kubernetes_share"] == "ingress"
    if verb == "deploy" and parted and by_ingress and not model["router_kubernetes_ingress"]:
        problems.say("router_kubernetes_ingress", "is missing; name the Ingress that leads to the Services")
    scaled = model["runtime_kubernetes_autoscaling"]
    if verb == "deploy" and scaled:
        for key, least, most in (("min", 1, scaled["max"]), ("max", 1, None), ("cpu_percent", 1, None)):
            value = scaled[key]
            if value is None:
                continue
            _least(value, least, f"runtime_kubernetes_autoscaling.{key}", problems)
            if most is not None and value > most:
                problems.say(f"runtime_kubernetes_autoscaling.{key}", f"{value} is more than max, {most}")


def check_version(version: Any, problems: Problems) -> None:
    if version is None or version == "":
        problems.say("app_version", "is missing; say which version to deploy, for example -e app_version=1.3.0")
    elif isinstance(version, str) and not _VERSION.match(version):
        problems.say("app_version", f"{version!r} must be letters, digits and any of . _ + -")


def _least(value: Any, least: float, path: str, problems: Problems) -> None:
    if value is not None and value < least:
        problems.say(path, f"must be at least {least:g}, not {value:g}")


def _url(value: Optional[str], path: str, problems: Problems) -> None:
    if value is not None and not _URL.match(value):
        problems.say(path, f"{value!r} must be a URL like http://127.0.0.1:8080, without query")


def _strategy(model: Model, problems: Problems) -> None:
    strategy = model["app_strategy"]
    _least(model["app_soak_minutes"], 0, "app_soak_minutes", problems)
    _least(model["app_batch_watch_seconds"], 0, "app_batch_watch_seconds", problems)
    for i, size in enumerate(model["app_batches"]):
        if not re.fullmatch(r"[1-9]\d*|([1-9]\d?|100)\s*%", size.strip()):
            problems.say(f"app_batches[{i}]", f"{size!r} must be a number of hosts or a percentage, like 2 or 25%")
    most = model["app_max_unavailable"]
    if most is not None and not re.fullmatch(r"[1-9]\d*|([1-9]\d?|100)\s*%", most.strip()):
        problems.say("app_max_unavailable", f"{most!r} must be a number of hosts or a percentage, like 2 or 25%")
    if not model["app_batches"]:
        problems.say("app_batches", "is empty; leave it out, or name the size of a batch")
    if strategy == "canary" and model["app_steps"] is None:
        model["app_steps"] = [dict(step) for step in CANARY]
    if strategy in ("rolling", "recreate") and model["app_steps"] is not None:
        problems.say("app_steps", f"is for canary and blue_green; {strategy} goes by app_batches")
    _steps(model["app_steps"], problems)


def _steps(steps: Optional[Sequence[Model]], problems: Problems) -> None:
    if steps is None:
        return
    if not steps:
        problems.say("app_steps", "is empty; leave it out or end it with weight 100")
        return
    before = 0
    for i, step in enumerate(steps):
        weight = step["weight"]
        if not 1 <= weight <= 100:
            problems.say(f"app_steps[{i}].weight", f"must be 1 to 100 percent, not {weight}")
        elif weight <= before:
            problems.say(f"app_steps[{i}].weight", f"{weight} does not rise above the {before} of the step before")
        before = weight
        _least(step["watch_seconds"], 0, f"app_steps[{i}].watch_seconds", problems)
    if steps[-1]["hold"]:
        problems.say(f"app_steps[{len(steps) - 1}].hold", "the last step can't hold: there is nothing after it")
    if before != 100:
        problems.say(f"app_steps[{len(steps) - 1}].weight", f"the last step must be 100 percent, not {before}")


def _services(model: Model, verb: str, problems: Problems) -> None:
    services = model["app_services"]
    if not services:
        problems.say("app_services", "is empty; name at least one service")
    names = [service["name"] for service in services]
    taken: dict[int, str] = {}
    for i, service in enumerate(services):
        path = f"app_services[{i}]"
        if not _NAME.match(service["name"]):
            problems.say(
                f"{path}.name", f"{service['name']!r} must be lower-case letters, digits and hyphens, a letter first"
            )
        if service["name"] in names[:i]:
            problems.say(
                f"{path}.name", f"{service['name']} is the name of app_services[{names.index(service['name'])}]"
            )
        own = model["app_runtime"] in OWN_ADDRESSES
        service["ports"] = service["ports"] or {
            "blue": service["port"],
            "green": service["port"] + (0 if own else model["app_slot_port_offset"]),
        }
        for slot in SLOTS:
            port, key = service["ports"][slot], f"{path}.ports.{slot}"
            if not 1 <= port <= 65535:
                problems.say(key, f"port {port} is not between 1 and 65535")
            elif port in taken and not own:
                problems.say(key, f"port {port} is already {taken[port]}")
            taken.setdefault(port, key)
        _service(service, path, names, problems)
        if verb == "deploy":
            _code(service, model["app_runtime"], path, problems)
            _release_keys(service, path, problems)
    if verb == "deploy" and model["app_runtime"] == "host":
        _packages(services, model["app_strategy"], problems)
    _cycles(services, problems)
    exclusive = exclusives({"app_services": services})
    for i, service in enumerate(services):
        for other in exclusive if not service["exclusive"] else ():
            if other in service["depends_on"]:
                problems.say(
                    f"app_services[{i}].depends_on",
                    f"{other} is exclusive, so it starts later; remove it there, or make both exclusive",
                )
    if services and not any(service["routed"] for service in services):
        problems.say("app_services", "none is routed, so there is no traffic to move; set routed on one of them")


def _service(service: Model, path: str, names: Sequence[str], problems: Problems) -> None:
    for key in ("health", "ready", "version"):
        probe = service[key]
        if probe is None:
            continue
        if not probe["path"].startswith("/"):
            problems.say(f"{path}.{key}.path", f"{probe['path']!r} must begin with /")
        if key == "version":
            continue
        for name in probe["headers"]:
            if name.lower() in SECRET_HEADERS:
                problems.say(
                    f"{path}.{key}.headers.{name}", "holds a secret and plans are shown; use a path that needs none"
                )
        for code in probe["status"]:
            if not 100 <= code <= 599:
                problems.say(f"{path}.{key}.status", f"{code} is not an HTTP status code")
        if not probe["status"]:
            problems.say(f"{path}.{key}.status", "is empty; name at least one status code")
        for pattern_key, pattern in (("body", probe["body"]), *probe["expect_headers"].items()):
            problem = _pattern_problem(pattern)
            if problem:
                inner = pattern_key if pattern_key == "body" else f"expect_headers.{pattern_key}"
                problems.say(f"{path}.{key}.{inner}", problem)
        _least(probe["within_ms"], 1, f"{path}.{key}.within_ms", problems)
        _least(probe["successes"], 1, f"{path}.{key}.successes", problems)
        _least(probe["timeout_seconds"], 0.1, f"{path}.{key}.timeout_seconds", problems)
    for key in ("url", "router_url"):
        _url(service[key], f"{path}.{key}", problems)
    for other in service["depends_on"]:
        if other == service["name"]:
            problems.say(f"{path}.depends_on", f"{other} depends on itself")
        elif other not in names:
            problems.say(f"{path}.depends_on", f"{other!r} is no service{closest(other, names)}")
    if service["exclusive"] and service["routed"]:
        problems.say(
            f"{path}.exclusive", "a service with traffic runs in both slots while it moves; set routed to false"
        )
    for key, least in (("start_seconds", 1), ("stop_seconds", 1), ("drain_seconds", 0)):
        _least(service[key], least, f"{path}.{key}", problems)


def _pattern_problem(pattern: Optional[str]) -> str:
    try:
        re.compile(pattern or "")
    except re.error as error:
        return f"{pattern!r} is no regular expression: {error}"
    return ""


def _code(service: Model, runtime: str, path: str, problems: Problems) -> None:
    """What runs: an artifact and a command, or an image."""
    contained = runtime == "host" and service["image"] is not None
    wanted, unwanted = CODE["compose" if contained else runtime]
    where = "a service with an image" if contained else f"the runtime {runtime}"
    for key, what in wanted.items():
        if service[key] is None:
            problems.say(f"{path}.{key}", f"is missing; give {what}")
    for key in unwanted:
        if service[key]:
            problems.say(f"{path}.{key}", f"is not for {where}; remove it")
    artifact, command = service["artifact"], service["command"]
    if artifact is not None and "artifact" not in unwanted:
        _artifact(artifact, f"{path}.artifact", problems)
    if command is not None and "command" not in unwanted:
        if not command.strip():
            problems.say(f"{path}.command", "is empty")
        if "\n" in command:
            problems.say(f"{path}.command", "must be one line")
    for key in (*service["environment"], *service["secrets"]) if contained else ():
        if CLIENT.match(key):
            problems.say(path, f"the variable {key} would change what runs the container; set it in the image")
    if service["image"] is not None and runtime != "compose":
        _image(service["image"], f"{path}.image", problems)
    port = service["container_port"]
    if port is not None and not 1 <= port <= 65535:
        problems.say(f"{path}.container_port", f"port {port} is not between 1 and 65535")


def _release_keys(service: Model, path: str, problems: Problems) -> None:
    command = service["command"] or ""
    for kind in ("environment", "secrets"):
        for key, value in service[kind].items():
            where = f"{path}.{kind}.{key}"
            if not _VARIABLE.match(key):
                problems.say(where, "is no name of an environment variable (letters, digits and _)")
            elif key in RESERVED:
                problems.say(where, "is set by the runtime; choose another name")
            if isinstance(value, (dict, list)) or value is None:
                problems.say(where, "must be a string")
            elif kind == "secrets" and (not str(value).strip() or _PLACEHOLDER.match(str(value).strip())):
                problems.say(where, "is empty or a placeholder; give the real value, from a vault or the environment")
            elif kind == "secrets" and len(str(value)) >= 4 and str(value) in command:
                problems.say(f"{path}.command", f"contains the secret {key}; use ${key}, the command line is public")
        both = set(service["environment"]) & set(service["secrets"])
        if both and kind == "secrets":
            problems.say(f"{path}.secrets.{min(both)}", "is also in environment; keep one")
    for name, content in service["files"].items():
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or parts[-1] in ("", "."):
            problems.say(f"{path}.files", f"{name!r} must be a relative path that stays inside the service's directory")
        elif not isinstance(content, str):
            problems.say(f"{path}.files.{name}", "must be text")


def _artifact(artifact: Model, path: str, problems: Problems) -> None:
    given = [key for key in ("archive", "wheel", "git", "apt") if artifact[key]]
    if artifact["python"] and not artifact["wheel"]:
        given.append("python")
    if len(given) != 1:
        found = " and ".join(given) or "none"
        problems.say(path, f"must have exactly one of archive, python, wheel, git, apt; it has {found}")
        return
    form = given[0]
    if form in ("archive", "wheel") and not re.fullmatch(r"[0-9a-f]{64}", artifact["sha256"] or ""):
        problems.say(f"{path}.sha256", f"must be the SHA-256 of the {form}, 64 hexadecimal digits")
    for key, problem in _apt.problems(artifact["apt"]) if form == "apt" else ():
        problems.say(f"{path}.apt.{key}", problem)
    if form == "git" and not artifact["ref"]:
        problems.say(f"{path}.ref", "is missing; name a tag or a commit")
    for i, requirement in enumerate(artifact["python"] or []):
        if not _PINNED.match(requirement):
            problems.say(f"{path}.python[{i}]", f"{requirement!r} must name an exact version, like datasette==0.65.1")
    _least(artifact["strip_components"], 0, f"{path}.strip_components", problems)


def _packages(services: Sequence[Model], strategy: str, problems: Problems) -> None:
    """A package lives at fixed paths: a host has one version of it, and none beside another."""
    known: dict[str, tuple[str, Model]] = {}
    for i, service in enumerate(services):
        package = (service["artifact"] or {}).get("apt")
        if not package:
            continue
        path = f"app_services[{i}].artifact.apt"
        if strategy not in IN_PLACE:
            problems.say(
                "app_strategy",
                f"{strategy} runs two releases beside each other, but a host has one version of the package "
                f"{package['package']} ({path}); take rolling or recreate",
            )
        first, other = known.setdefault(package["package"], (path, package))
        if other != package:
            problems.say(path, f"differs from {first}, and a host has one version of the package {package['package']}")


def _image(image: str, path: str, problems: Problems) -> None:
    if not _IMAGE.match(image):
        problems.say(path, f"{image!r} is no reference of an image, like registry.example.com/shop/api:1.3.0")
    elif "@" not in image and image.rpartition("/")[2].partition(":")[2] == "latest":
        problems.say(path, f"{image!r} moves; name another tag, or a digest (@sha256:...)")


def _cycles(services: Sequence[Model], problems: Problems) -> None:
    if not problems and len(start_order(services)) < len(services):
        stuck = sorted({s["name"] for s in services} - {s["name"] for s in start_order(services)})
        problems.say("app_services", f"depends_on goes round in a circle: {', '.join(stuck)}")


def start_order(services: Sequence[Model]) -> list[Model]:
    """Services so that each comes after those it depends on; what is caught in a circle is left out."""
    ordered: list[Model] = []
    ready: set[str] = set()
    rest = list(services)
    while True:
        free = [service for service in rest if set(service["depends_on"]) <= ready]
        if not free:
            return ordered
        ordered += free
        ready.update(service["name"] for service in free)
        rest = [service for service in rest if service["name"] not in ready]


def amount(word: str, of: int) -> int:
    """A number of hosts, or a percentage of ``of`` of them, rounded down; at least one."""
    text = word.strip()
    return max(1, of * int(text[:-1]) // 100) if text.endswith("%") else int(text)


def batches(hosts: Sequence[str], sizes: Sequence[str]) -> list[list[str]]:
    """The hosts in batches of these sizes; the last size holds for all that are left."""
    found: list[list[str]] = []
    rest = list(hosts)
    while rest:
        size = amount(sizes[min(len(found), len(sizes) - 1)], len(hosts))
        found.append(rest[:size])
        rest = rest[size:]
    return found


# -- rules of the fleet -----------------------------------------------------------------------------------------


def check_groups(groups: Mapping[str, Sequence[str]]) -> Problems:
    problems = Problems()
    for name, role in (
        ("targets", "run the services"),
        ("routers", "send the traffic"),
        ("state", "keeps the journal"),
    ):
        if not groups.get(name):
            problems.say(f"inventory group {name}", f"is missing or empty; it names the hosts that {role}")
    if len(groups.get("state", ())) > 1:
        problems.say("inventory group state", f"must be one host, not {len(groups['state'])}")
    return problems


def check_fleet(models: Mapping[str, Model], targets: Sequence[str], routers: Sequence[str], verb: str) -> Problems:
    """What must agree between hosts. ``models`` has every target, router and the state host."""
    problems = Problems()
    first = targets[0]
    same = ["app_name", "app_environment", "app_version", "app_strategy", "app_steps", "app_batches"]
    same += ["app_max_unavailable", "app_router_members", "app_keep_releases"]
    for host, model in models.items():
        for key in same:
            if model[key] != models[first][key]:
                problems.say(f"{key} on {host}", f"is {model[key]!r}, but {models[first][key]!r} on {first}")
    clustered = [host for host in targets if models[host]["app_runtime"] == "kubernetes"]
    if clustered and len(clustered) < len(targets):
        problems.say(
            "app_runtime", f"is kubernetes on {', '.join(clustered)} only; a router reaches pods or hosts, not both"
        )
    names = [service["name"] for service in models[first]["app_services"]]
    taken: dict[tuple[str, int], str] = {}
    for host in targets:
        services = models[host]["app_services"]
        if [service["name"] for service in services] != names:
            problems.say(f"app_services on {host}", f"has other services than {first}; every target runs the same")
        for i, service in enumerate(services):
            for slot in SLOTS:
                place = (models[host]["app_address"], service["ports"][slot])
                key = f"app_services[{i}].ports.{slot} on {host}"
                if place in taken and models[host]["app_runtime"] not in OWN_ADDRESSES:
                    problems.say(key, f"port {place[1]} of {place[0]} is already {taken[place]}")
                taken[place] = key
    if models[first]["app_router_members"] == "local":
        for router in routers:
            if router not in targets:
                problems.say("app_router_members", f"is local, but the router {router} is no target")
    if models[first]["app_strategy"] == "rolling" and models[first]["app_max_unavailable"] and not problems:
        most = amount(models[first]["app_max_unavailable"], len(targets))
        largest = max(len(group) for group in batches(targets, models[first]["app_batches"]))
        if largest > most:
            problems.say("app_batches", f"a batch of {largest} is more than app_max_unavailable allows: {most}")
    if verb == "deploy" and not problems:
        versions = {host: answers(models[host]) for host in targets}
        if any(value != versions[first] for value in versions.values()):
            problems.say("app_services", "version.value differs between targets; a release is one version")
    return problems


# -- what follows -----------------------------------------------------------------------------------------------


def release_digest(model: Model) -> str:
    """Digest of all that makes the release on one target: code identity, command, configuration, environment."""
    if model["app_runtime"] == "compose":
        made = compose_services(model["app_services"])
        return digest(made, model["compose_files"], texts(model["runtime_compose_variables"]))
    if model["app_runtime"] == "kubernetes":
        settings = {key: model[key] for key in RELEASE_SETTINGS["kubernetes"] if model.get(key)}
        whole = [image_services(model["app_services"], model["app_version"]), settings]
        return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
    made_of = release_services(model["app_services"])
    for part in made_of:  # where the archive lies does not matter, its content does
        artifact = part.get("artifact")
        if artifact is None:
            continue
        part["artifact"] = {
            k: v for k, v in artifact.items() if k not in ("archive", "wheel") or "sha256" not in artifact
        }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


def release_id(version: str, digests: Collection[str]) -> str:
    """``<version>-<digest8>`` over the targets' digests; targets that are alike don't change it by their number."""
    joined = "".join(sorted(set(digests)))
    return f"{version}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def artifacts(models: Iterable[Model]) -> dict[str, dict[str, Any]]:
    """What identifies the code of each service on targets of these models, for the record."""
    keys = ("sha256", "python", "git", "ref", "apt")
    found: dict[str, dict[str, Any]] = {}
    for service in (service for model in models for service in model["app_services"]):
        code = {"image": service["image"], **{key: (service["artifact"] or {}).get(key) for key in keys}}
        found.setdefault(service["name"], {}).update({key: value for key, value in code.items() if value})
    return found


def answers(model: Model) -> dict[str, str]:
    """What each service of this model's release says as its version."""
    return {s["name"]: s["version"]["value"] or model["app_version"] for s in model["app_services"]}


def exclusives(model: Model) -> list[str]:
    """The services that run in one slot only."""
    return [service["name"] for service in model["app_services"] if service["exclusive"]]


def slot_services(model: Model, slot: str, expected: Mapping[str, str]) -> list[Model]:
    """The services of one slot in start order, with the probes that prove them on their own host."""
    return [
        {
            "name": service["name"],
            "port": service["ports"][slot],
            "start_seconds": service["start_seconds"],
            "stop_seconds": service["stop_seconds"],
            "drain_seconds": service["drain_seconds"],
            "probes": slot_probes(service, expected.get(service["name"])),
        }
        for service in start_order(model["app_services"])
    ]


def slot_probes(service: Model, expected: Optional[str] = None) -> list[Model]:
    """What proves a service on its own host; without ``expected`` any version will do."""
    base = "http://127.0.0.1:{port}"
    asked = [(kind, service[kind]) for kind in ("ready", "health") if service[kind]]
    probes = [
        {"name": f"{service['name']} {kind}", "url": base + probe["path"], **_rest(probe)} for kind, probe in asked
    ]
    return [*probes, version_probe(service, base, expected)]


def _rest(probe: Model) -> Model:
    return {key: value for key, value in probe.items() if key != "path" and value is not None}


def version_probe(service: Model, base: str, *expected: Optional[str], successes: int = 1) -> Model:
    """The probe that asks a service which version it is; without ``expected`` any answer will do."""
    probe: Model = {
        "name": f"{service['name']} version",
        "url": base.rstrip("/") + service["version"]["path"],
        "version_path": service["version"]["key"],
        "versions": [value for value in expected if value],
        "successes": successes,
    }
    if not probe["version_path"] and not probe["versions"]:
        probe["body"] = "."  # the whole body is the version: any will do, but there must be one
    if service["host_header"] and "{port}" not in base:
        probe["headers"] = {"Host": service["host_header"]}
    return probe


def routed(model: Model) -> list[Model]:
    return [service for service in model["app_services"] if service["routed"]]


def router_services(model: Model) -> list[Model]:
    """What a router that knows services, and not addresses, needs of them."""
    return [{"name": service["name"], "port": service["port"]} for service in routed(model)]


def pod_probes(model: Model, expected: Mapping[str, str]) -> dict[str, Model]:
    """By routed service the probe of one instance of it, which must answer this release's version."""
    return {s["name"]: version_probe(s, "http://127.0.0.1:{port}", expected.get(s["name"])) for s in routed(model)}


def router_base(service: Model, model: Model) -> str:
    """Base URL under which the router host asks itself for a service."""
    return str(service["router_url"] or model["app_router_url"] or service["url"] or model["app_url"])


def upstreams(
    models: Mapping[str, Model],
    members: Sequence[str],
    weights: Mapping[str, int],
    apart: Optional[Mapping[str, Mapping[str, int]]] = None,
) -> list[Model]:
    """One upstream per routed service, every slot of every member target with its slot's weight; ``apart`` has the
    weights of each host where they are not the same for all."""
    model = models[members[0]]
    name = f"{model['app_name']}_".replace("-", "_")
    return [
        {
            "name": name + service["name"].replace("-", "_"),
            "members": [
                {
                    "address": models[host]["app_address"],
                    "port": models[host]["app_services"][i]["ports"][slot],
                    "slot": slot,
                    "weight": (weights if apart is None else apart[host]).get(slot, 0),
                }
                for host in members
                for slot in SLOTS
            ],
        }
        for i, service in enumerate(model["app_services"])
        if service["routed"]
    ]


def release_services(services: Sequence[Mapping[str, Any]]) -> list[Model]:
    """What the module that makes a release takes of each service."""
    return [
        _image_service(service)
        if service.get("image")
        else {
            "name": service["name"],
            "artifact": {k: v for k, v in service["artifact"].items() if v is not None and k != "python_executable"},
            **(
                {"python_executable": interpreter}
                if (interpreter := service["artifact"].get("python_executable"))
                else {}
            ),
            "command": service["command"],
            "files": dict(service.get("files") or {}),
            **{kind: texts(service.get(kind)) for kind in ("environment", "secrets")},
        }
        for service in services
    ]


def compose_services(services: Sequence[Mapping[str, Any]]) -> list[Model]:
    """What the module that makes a release of Compose takes of each service."""
    return [_image_service(service) for service in services]


def _image_service(service: Mapping[str, Any]) -> Model:
    return {
        "name": service["name"],
        "image": service["image"],
        "container_port": int(service.get("container_port") or service["port"]),
        **{kind: texts(service.get(kind)) for kind in ("environment", "secrets")},
    }


def image_services(services: Sequence[Mapping[str, Any]], version: str) -> list[Model]:
    """What the module that makes a release of Kubernetes takes of each service."""
    return [
        {
            "name": service["name"],
            "image": tagged(service["image"], version),
            "command": service.get("command"),
            "files": dict(service.get("files") or {}),
            **{kind: texts(service.get(kind)) for kind in ("environment", "secrets")},
        }
        for service in services
    ]


def tagged(image: str, version: str) -> str:
    """The image with the version as its tag, unless it has a tag or a digest."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:{version}"


def build_seconds(model: Model) -> float:
    """How long the runtime may take to make a release."""
    return float(model.get(f"runtime_{model['app_runtime']}_build_seconds") or 0)
