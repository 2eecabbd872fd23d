# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller-side plugins share: models out of host variables, the holder of a lease, plain values.

Private: may change at any time.
"""

from __future__ import annotations

import functools
import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import yaml
from ansible.errors import AnsibleError
from ansible.template import Templar
from ansible_collections.signalbox.runbook.plugins.module_utils import _gates, _journal, _model
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems

ROLES = Path(__file__).resolve().parents[2] / "roles"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
PROOF_RECORDS = 200  # of another environment, in which a version is looked for
GROUPS = ("targets", "routers", "state")


def plain(value: Any) -> Any:
    """The value without tags, laziness and encryption: what json and the pure core take."""
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


@functools.lru_cache(maxsize=1)
def specs() -> dict[str, dict[str, Any]]:
    """Prefix of a role's variables to the options that its argument specification documents."""
    found: dict[str, dict[str, Any]] = {}
    roles = ("app", "watch", "accounting", "runtime_host", "runtime_compose", "runtime_kubernetes")
    for role in (*roles, "router_nginx", "router_haproxy", "router_kubernetes"):
        text = (ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
        for entry in yaml.load(text, Loader=LOADER)["argument_specs"].values():
            for key, option in entry["options"].items():
                prefix = f"{role}_" if key.startswith(f"{role}_") else key.partition("_")[0] + "_"
                found.setdefault(prefix, {})[key] = option
    return found


def host_values(hostvars: Any, loader: Any, host: str, verb: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The templated model variables of one host.

    Only a deploy needs what makes a release; other verbs leave those keys untemplated, because the artifact of an
    old version need not be on the controller any more.
    """
    # Which version a rollback goes to is known only later: until then the values made of it are made of nothing.
    raw = {"app_version": "", **hostvars.raw_get(host), **overrides, "hostvars": hostvars, "inventory_hostname": host}
    templar = Templar(loader=loader, variables=raw)
    if verb == "deploy":
        _check_version(templar, raw, host)
    prefixes = tuple(specs())
    values: dict[str, Any] = {}
    for key in raw:
        if not key.startswith(prefixes):
            continue
        try:
            if key == "app_services" and verb != "deploy" and isinstance(raw[key], (list, tuple)):
                values[key] = [_template_mapping(templar, item, _model.RELEASE_KEYS) for item in raw[key]]
            else:
                values[key] = plain(templar.template(raw[key]))
        except AnsibleError as error:
            raise RunbookError(f"{_culprit(templar, raw[key], key)} (on {host}): {error.message}") from error
    return values


def open_values(model: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The variables of one role that may be part of a result: all but those that it documents as secrets."""
    secret = {key for key, option in specs()[prefix].items() if option.get("no_log")}
    return {key: value for key, value in model.items() if key.startswith(prefix) and key not in secret}


def secret_values(task_vars: Mapping[str, Any], loader: Any, task: Any, prefix: str) -> dict[str, str]:
    """The secrets of one role, as the first target has them: they are in no result, but read where they are used."""
    keys = [key for key, option in specs()[prefix].items() if option.get("no_log")]
    hosts = groups(task_vars)["targets"]
    raw = {**task_vars["hostvars"].raw_get(hosts[0]), "hostvars": task_vars["hostvars"]} if hosts else {}
    raw.update({key: task_vars[key] for key in keys if key in task.get_play().vars and key in task_vars})
    templar = Templar(loader=loader, variables=raw)
    found = {}
    for key in keys:
        try:
            found[key] = plain(templar.template(raw.get(key))) or ""
        except AnsibleError as error:
            raise RunbookError(f"{key}: {error.message}") from error
    return found


def _check_version(templar: Templar, raw: Mapping[str, Any], host: str) -> None:
    """First, because other values are made of it: what is wrong with them then says nothing."""
    problems = Problems()
    try:
        _model.check_version(plain(templar.template(raw.get("app_version"))), problems)
    except AnsibleError as error:
        raise RunbookError(f"app_version (on {host}): {error.message}") from error
    if problems:
        raise RunbookError(". ".join(problems), problems=list(problems))


def _culprit(templar: Templar, raw: Any, path: str) -> str:
    """The path of the one value within ``raw`` that can't be templated."""
    inner: list[tuple[str, Any]] = []
    if isinstance(raw, Mapping):
        inner = [(f"{path}.{key}", raw[key]) for key in raw]
    elif isinstance(raw, (list, tuple)):
        inner = [(f"{path}[{i}]", item) for i, item in enumerate(raw)]
    for where, value in inner:
        try:
            templar.template(value)
        except AnsibleError:
            return _culprit(templar, value, where)
    return path


def _template_mapping(templar: Templar, raw: Any, leave_out: Sequence[str]) -> Any:
    if not isinstance(raw, Mapping):
        return plain(templar.template(raw))
    return {str(key): plain(templar.template(raw[key])) for key in raw if key not in leave_out}


def groups(task_vars: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: [str(host) for host in task_vars["groups"].get(name, [])] for name in GROUPS}


def load_models(
    task_vars: Mapping[str, Any], task: Any, loader: Any, request: Mapping[str, Any]
) -> dict[str, _model.Model]:
    """The checked models of every target, router and state host, or one error that lists all problems.

    Variables of the play (``vars`` of an ``import_playbook``) hold for every host, as they do for its tasks.
    """
    hosts = groups(task_vars)
    problems = _model.check_groups(hosts)
    if problems:
        raise RunbookError("; ".join(problems), problems=problems)
    known = specs()
    overrides = {
        key: task_vars[key] for key in task.get_play().vars if key.startswith(tuple(known)) and key in task_vars
    }
    if request.get("version"):
        overrides["app_version"] = request["version"]
    participants = list(dict.fromkeys(host for members in hosts.values() for host in members))
    models: dict[str, _model.Model] = {}
    found: dict[str, list[str]] = {}  # problem to the hosts that have it: said once
    for host in participants:
        values = host_values(task_vars["hostvars"], loader, host, request["verb"], overrides)
        model, bad = _model.load(values, known, request["verb"])
        composed = not bad and model["app_runtime"] == "compose" and host in hosts["targets"]
        if composed and request["verb"] == "deploy":
            model["compose_files"] = compose_files(model["runtime_compose_files"], task, loader, bad)
        if not bad:
            model["gates"] = _gates.load(model["app_gates"], "app_gates", bad)
        models[host] = model
        for problem in bad:
            found.setdefault(problem, []).append(host)
    merged = Problems(p if len(h) == len(participants) else f"{p} (on {', '.join(h)})" for p, h in found.items())
    if not merged:
        merged = _model.check_fleet(models, hosts["targets"], hosts["routers"], request["verb"])
    if merged:
        raise RunbookError(". ".join(merged) + ". Nothing has been touched.", problems=list(merged))
    return models


def compose_files(paths: Sequence[str], task: Any, loader: Any, problems: Problems) -> list[dict[str, str]]:
    """Name and content of each compose file, found as the lookup in the stage step finds them."""
    found = []
    if not paths:
        problems.say("runtime_compose_files", "is empty; name the compose files of the application, the base first")
    for number, path in enumerate(paths):
        try:
            where = loader.path_dwim_relative_stack(task.get_search_path(), "files", path)
            found.append({"name": Path(path).name, "content": Path(where).read_text(encoding="utf-8")})
        except (AnsibleError, OSError, UnicodeDecodeError) as error:
            why = "there is no such file" if isinstance(error, AnsibleError) else str(error)
            problems.say(f"runtime_compose_files[{number}]", f"{path!r} can't be read on the controller: {why}")
    return found


def proofs(action: Any, task_vars: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str], Mapping[str, Any]]:
    """Reads what a gate promotion wants: a file on the controller, or another journal on the state host."""

    def proof(gate: Mapping[str, Any], version: str) -> Mapping[str, Any]:
        if gate["journal"]:
            read = journal(action, task_vars, directory=gate["journal"], state="read", recent=PROOF_RECORDS)
            if read.get("failed") or read.get("unreachable"):
                raise RunbookError(str(read.get("msg")))
            return _gates.proof_in(read["history"], version)
        try:
            return _gates.read_proof(Path(gate["proof"]).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is no text"
            raise RunbookError(f"can't be read on the controller: {why}") from error

    return proof


def refusal(error: RunbookError) -> dict[str, Any]:
    """What an action that comes before any change returns for an error."""
    text = str(error)
    if "nothing has been touched" not in text.lower():
        text = f"{text.rstrip('.')}. Nothing has been touched."
    return {"failed": True, "msg": text, **error.details}


def looked_at(hostvars: Any, hosts: list[str], name: str) -> dict[str, Any]:
    """What each host said when it was looked at; a host that said nothing has a problem."""
    found = {}
    for host in hosts:
        outcome = plain(hostvars[host].get(name) or {})
        answer = outcome.get("result") or {"failed": True, "msg": "gave no answer"}
        if answer.get("unreachable"):
            answer["problem"] = f"is unreachable ({answer.get('msg', '')})"
        elif outcome.get("failed") or answer.get("failed"):
            answer["problem"] = str(answer.get("msg"))
        elif answer.get("manager") and not answer["manager"].get("ok"):
            answer["problem"] = answer["manager"]["problem"]
        elif (answer.get("links") or {}).get("problem"):
            answer["problem"] = answer["links"]["problem"]
        found[str(host)] = answer
    return found


CASTS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "path": lambda path: os.path.expanduser(os.path.expandvars(path)),
}


def is_here(action: Any) -> bool:
    """Whether the action's host is this machine, under this user and its environment: then files there are our own."""
    given = any(action._task.environment or ())
    return bool(action._connection.transport == "local" and not action._connection.become and not given)


def journal(action: Any, task_vars: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """One call of the module of the journal on the state host, which is the host of the action's task.

    Where that is this machine, the core is asked in place: packing and starting a module for it costs a third of a
    second, and every step of a run waits for it once.
    """
    name, core = _module_of(given)
    if not is_here(action):
        answer: dict[str, Any] = action._execute_module(
            module_name=f"signalbox.runbook.{name}", module_args=given, task_vars=dict(task_vars)
        )
        return answer
    asked = {key: given.get(key, option.get("default")) for key, option in core.ARGUMENTS.items()}
    complete = {
        key: value if value is None else CASTS.get(core.ARGUMENTS[key]["type"], plain)(value)
        for key, value in asked.items()
    }
    try:
        return {"failed": False, **core.call(complete)}
    except RunbookError as error:
        return {"failed": True, "msg": str(error), **error.details}


def _module_of(store: Mapping[str, Any]) -> tuple[str, ModuleType]:
    if "directory" in store:
        return "journal", _journal
    # Only where it is used: what speaks to a cluster takes longer to load than all the rest.
    from ansible_collections.signalbox.runbook.plugins.module_utils import _journal_kubernetes

    return "kubernetes_journal", _journal_kubernetes


# -- the holder of a lease --------------------------------------------------------------------------------------


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot: pid and this never come twice. Empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]  # killed, but nobody has collected its exit status yet


def _machine() -> str:
    """This boot of this machine in this pid namespace; empty where it can't be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def holder(task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """Who runs this. Task actions run in a worker; its parent is ansible-playbook itself."""
    job = task_vars.get("awx_job_id") or task_vars.get("tower_job_id")
    user = task_vars.get("awx_user_name") or task_vars.get("tower_user_name")
    pid = os.getppid()
    return {
        "user": str(user or getpass.getuser()),
        "host": socket.gethostname(),
        "job": str(job or ""),
        "pid": pid,
        "started": _started(pid),
        "machine": _machine(),
    }


def is_dead(lease: Mapping[str, Any]) -> bool:
    """Whether the holder ran on this very machine and is no more. Elsewhere only the time to live tells."""
    who = lease["holder"]
    return bool(who.get("machine")) and who["machine"] == _machine() and _started(who["pid"]) != who["started"]
