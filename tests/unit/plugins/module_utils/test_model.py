# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import re

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _model
from ansible_collections.signalbox.runbook.plugins.plugin_utils._controller import specs
from hypothesis import given
from hypothesis import strategies as st

SPECS = specs()
SHA = "5f" * 32
SECRET = "s3cr3t-Value"
S0, S1 = "app_services[0]", "app_services[1]"


def good():
    """A model that nothing is wrong with: a database that only its own host asks, and a routed frontend."""
    return {
        "app_name": "clickview",
        "app_environment": "production",
        "app_version": "1.3.0",
        "app_home": "/srv/clickview",
        "app_state_dir": "/var/lib/runbook/clickview",
        "app_url": "http://app.test:8080",
        "app_services": [
            {
                "name": "backend",
                "port": 3001,
                "artifact": {"archive": "/tmp/backend.tar.gz", "sha256": SHA},
                "command": "python server.py $PORT",
                "environment": {"MODE": "fast"},
                "secrets": {"DB_PASSWORD": SECRET},
                "files": {"conf/app.ini": "[a]\nb=1\n"},
                "health": {"path": "/health"},
                "version": {"path": "/version", "key": "version"},
                "routed": False,
            },
            {
                "name": "frontend",
                "port": 3002,
                "artifact": {"python": ["datasette==0.65.1"]},
                "command": "datasette serve -p $PORT",
                "health": {"path": "/-/health"},
                "version": {"path": "/-/version"},
                "depends_on": ["backend"],
            },
        ],
    }


def change(path, value):
    """A change of one key, ``services.0.port`` style; ``...`` takes the key away."""

    def apply(values):
        *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        place = values
        for part in way:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return apply


def changed(*changes):
    values = good()
    for one in changes:
        one(values)
    return values


def problems(values, verb="deploy"):
    return list(_model.load(values, SPECS, verb)[1])


def svc(i, key, value):
    return change(f"app_services/{i}/{key}", value)


def artifact(**form):
    return svc(0, "artifact", form)


APT = {"package": "shop", "version": "1:1.3.0~rc1-1"}
ONE = "must have exactly one of archive, python, wheel, git, apt; it has"
NAME = "must be lower-case letters, digits and hyphens, a letter first"
URL = "must be a URL like http://127.0.0.1:8080, without query"
INSIDE = "must be a relative path that stays inside the service's directory"
PLACEHOLDER = "is empty or a placeholder; give the real value, from a vault or the environment"

# id: (change or changes, every sentence in order)
BAD = {
    # -- what the schema says --
    "unknown key": (change("app_versoin", "1"), ["app_versoin: unknown key; did you mean app_version?"]),
    "unknown key without neighbour": (change("app_qqqqqqqqqqqqq", "1"), ["app_qqqqqqqqqqqqq: unknown key"]),
    "misspelt threshold": (
        change("watch_eror_rate_percent", 5),
        ["watch_eror_rate_percent: unknown key; did you mean watch_error_rate_percent?"],
    ),
    "unknown key of the accounting": (
        change("accounting_request_per_second", 5),
        ["accounting_request_per_second: unknown key; did you mean accounting_requests_per_second?"],
    ),
    "unknown service key": (svc(0, "prot", 1), [f"{S0}.prot: unknown key; did you mean port?"]),
    "unknown probe key": (svc(0, "health/pth", 1), [f"{S0}.health.pth: unknown key; did you mean path?"]),
    "unknown artifact key": (
        svc(0, "artifact/sha265", SHA),
        [f"{S0}.artifact.sha265: unknown key; did you mean sha256?"],
    ),
    "unknown port slot": (
        svc(0, "ports", {"blue": 1, "green": 2, "gren": 3}),
        [f"{S0}.ports.gren: unknown key; did you mean green?"],
    ),
    "missing name": (
        change("app_name", ...),
        [
            "app_name: is missing; give Name of the application, for example clickview",
        ],
    ),
    "missing services": (change("app_services", ...), ["app_services: is missing; give The services, each a mapping"]),
    "missing home": (
        change("app_home", None),
        [
            "app_home: is missing; give Directory of the application on a target or router host",
        ],
    ),
    "missing port": (
        svc(1, "port", ...),
        [f"{S1}.port: is missing; give Port that the command listens on in the blue slot, 1 to 65535"],
    ),
    "missing health": (
        svc(1, "health", ...),
        [f"{S1}.health: is missing; give The probe that proves the service healthy"],
    ),
    "missing health path": (
        svc(1, "health", {}),
        [f"{S1}.health.path: is missing; give Path of the probe, for example /health"],
    ),
    "missing version": (
        svc(1, "version", ...),
        [f"{S1}.version: is missing; give Where the running service says its version"],
    ),
    "missing command": (
        svc(1, "command", ...),
        [f"{S1}.command: is missing; give Shell words that start the service in the foreground"],
    ),
    "missing artifact": (
        svc(1, "artifact", ...),
        [f"{S1}.artifact: is missing; give The code, or an image in its place"],
    ),
    "missing green port": (
        svc(0, "ports", {"blue": 3001}),
        [f"{S0}.ports.green: is missing; give Port in the green slot, 1 to 65535"],
    ),
    "services as a mapping": (
        change("app_services", {"backend": good()["app_services"][0]}),
        ["app_services: must be a list, not a mapping"],
    ),
    "service as a string": (change("app_services/0", "backend"), [f"{S0}: must be a mapping, not text"]),
    "port is a word": (svc(0, "port", "http"), [f"{S0}.port: must be a whole number, not 'http'"]),
    "port is a fraction": (svc(0, "port", "80.5"), [f"{S0}.port: must be a whole number, not '80.5'"]),
    "port is true": (svc(0, "port", True), [f"{S0}.port: must be a whole number, not True"]),
    "version is a number": (
        change("app_version", 1.10),
        ["app_version: must be a string, not 1.1"],
    ),
    "routed is a word": (svc(0, "routed", "perhaps"), [f"{S0}.routed: must be true or false, not 'perhaps'"]),
    "secrets is a string": (svc(0, "secrets", SECRET), [f"{S0}.secrets: must be a mapping, not the value"]),
    "secrets is a list": (svc(0, "secrets", [SECRET]), [f"{S0}.secrets: must be a mapping, not the value"]),
    "files is a string": (svc(0, "files", SECRET), [f"{S0}.files: must be a mapping, not the value"]),
    "environment is a list": (
        svc(0, "environment", ["A=1"]),
        [f"{S0}.environment: must be a mapping, not a list"],
    ),
    "unknown runtime": (
        change("app_runtime", "docker"),
        ["app_runtime: must be one of host, compose, kubernetes, not 'docker'"],
    ),
    "unknown strategy": (
        change("app_strategy", "bluegreen"),
        ["app_strategy: must be one of blue_green, canary, rolling, recreate, not 'bluegreen'"],
    ),
    "hold at the end": (
        change("app_steps", [{"weight": 10}, {"weight": 100, "hold": True}]),
        ["app_steps[1].hold: the last step can't hold: there is nothing after it"],
    ),
    "steps of a rolling deploy": (
        (change("app_strategy", "rolling"), change("app_steps", [{"weight": 100}])),
        ["app_steps: is for canary and blue_green; rolling goes by app_batches"],
    ),
    "no batch": (change("app_batches", []), ["app_batches: is empty; leave it out, or name the size of a batch"]),
    "batch without a size": (
        change("app_batches", ["1", "0"]),
        ["app_batches[1]: '0' must be a number of hosts or a percentage, like 2 or 25%"],
    ),
    "most of nothing": (
        change("app_max_unavailable", "half"),
        ["app_max_unavailable: 'half' must be a number of hosts or a percentage, like 2 or 25%"],
    ),
    "negative soak": (change("app_soak_minutes", -1), ["app_soak_minutes: must be at least 0, not -1"]),
    "negative watch of a batch": (
        change("app_batch_watch_seconds", -1),
        ["app_batch_watch_seconds: must be at least 0, not -1"],
    ),
    "unknown drift word": (change("app_drift", "fix"), ["app_drift: must be one of stop, restore, not 'fix'"]),
    "unknown no data word": (
        change("watch_no_data", "ok"),
        ["watch_no_data: must be one of fail, pass, inconclusive, extend, not 'ok'"],
    ),
    "percent sign": (
        change("watch_error_rate_percent", "10%"),
        ["watch_error_rate_percent: must be a number, not '10%'"],
    ),
    # -- rules of the application --
    "name with capitals": (change("app_name", "ClickView"), [f"app_name: 'ClickView' {NAME}"]),
    "name with a dot": (change("app_environment", "prod.eu"), [f"app_environment: 'prod.eu' {NAME}"]),
    "name with a newline": (change("app_name", "clickview\n"), [f"app_name: 'clickview\\n' {NAME}"]),
    "no version": (
        change("app_version", ...),
        ["app_version: is missing; say which version to deploy, for example -e app_version=1.3.0"],
    ),
    "empty version": (
        change("app_version", ""),
        ["app_version: is missing; say which version to deploy, for example -e app_version=1.3.0"],
    ),
    "version with a slash": (
        change("app_version", "feature/x"),
        ["app_version: 'feature/x' must be letters, digits and any of . _ + -"],
    ),
    "version that climbs": (
        change("app_version", "../1"),
        ["app_version: '../1' must be letters, digits and any of . _ + -"],
    ),
    "relative home": (change("app_home", "srv/app"), ["app_home: 'srv/app' must be an absolute path"]),
    "no place for the journal": (
        change("app_state_dir", ...),
        ["app_state_dir: is missing; give Directory of the journal and the lease on the state host"],
    ),
    "journal in no known store": (
        change("app_state_store", "etcd"),
        ["app_state_store: must be one of directory, kubernetes, not 'etcd'"],
    ),
    "journal in no namespace": (
        change("app_state_store", "kubernetes"),
        [
            "runtime_kubernetes_context: is missing, because app_state_store is kubernetes; name the context of the "
            "kubeconfig; the current one is never taken",
            "runtime_kubernetes_namespace: is missing, because app_state_store is kubernetes; name the namespace; that "
            "of the context is never taken",
        ],
    ),
    "relative state": (change("app_state_dir", "~/state"), ["app_state_dir: '~/state' must be an absolute path"]),
    "url without scheme": (change("app_url", "app.test:8080"), [f"app_url: 'app.test:8080' {URL}"]),
    "url with a query": (change("app_url", "http://app.test/?a=1"), [f"app_url: 'http://app.test/?a=1' {URL}"]),
    "url without host": (change("app_router_url", "http://"), [f"app_router_url: 'http://' {URL}"]),
    "url of another scheme": (change("app_url", "ftp://app.test"), [f"app_url: 'ftp://app.test' {URL}"]),
    "service url": (svc(1, "url", "//app"), [f"{S1}.url: '//app' {URL}"]),
    "service router url": (svc(1, "router_url", "http://a b/"), [f"{S1}.router_url: 'http://a b/' {URL}"]),
    "keeps no release": (change("app_keep_releases", 0), ["app_keep_releases: must be at least 1, not 0"]),
    "short lease": (change("app_lease_ttl_seconds", 5), ["app_lease_ttl_seconds: must be at least 10, not 5"]),
    "negative lease wait": (
        change("app_lease_wait_seconds", -1),
        ["app_lease_wait_seconds: must be at least 0, not -1"],
    ),
    "offset of nothing": (
        change("app_slot_port_offset", 0),
        [
            "app_slot_port_offset: must be at least 1, not 0",
            f"{S0}.ports.green: port 3001 is already {S0}.ports.blue",
            f"{S1}.ports.green: port 3002 is already {S1}.ports.blue",
        ],
    ),
    "negative watch": (change("watch_seconds", "-1"), ["watch_seconds: must be at least 0, not -1"]),
    "watch without pause": (
        change("watch_interval_seconds", 0),
        ["watch_interval_seconds: must be at least 0.1, not 0"],
    ),
    "watch without window": (
        change("watch_window_seconds", -2.5),
        ["watch_window_seconds: must be at least 0.1, not -2.5"],
    ),
    "no minimum": (change("watch_minimum_requests", 0), ["watch_minimum_requests: must be at least 1, not 0"]),
    "negative failure limit": (change("watch_failure_limit", -1), ["watch_failure_limit: must be at least 0, not -1"]),
    "p95 of nothing": (change("watch_p95_ms", 0), ["watch_p95_ms: must be at least 1, not 0"]),
    "error rate above all": (
        change("watch_error_rate_percent", 100.5),
        ["watch_error_rate_percent: must be 0 to 100 percent, not 100.5"],
    ),
    "negative error rate": (
        change("watch_error_rate_percent", -1),
        ["watch_error_rate_percent: must be 0 to 100 percent, not -1"],
    ),
    "negative rate of requests": (
        change("accounting_requests_per_second", -1),
        ["accounting_requests_per_second: must be at least 0, not -1"],
    ),
    "no clients": (change("accounting_connections", 0), ["accounting_connections: must be at least 1, not 0"]),
    "request without time": (
        change("accounting_timeout_seconds", 0),
        ["accounting_timeout_seconds: must be at least 0.1, not 0"],
    ),
    "watch that sees nothing": (
        change("accounting_requests_per_second", 0),
        ["accounting_requests_per_second: is 0, so a watch would see no data; set watch_seconds to 0 too"],
    ),
    # -- steps --
    "no steps": (change("app_steps", []), ["app_steps: is empty; leave it out or end it with weight 100"]),
    "steps that fall": (
        change("app_steps", [{"weight": 50}, {"weight": 25}, {"weight": 100}]),
        ["app_steps[1].weight: 25 does not rise above the 50 of the step before"],
    ),
    "steps that stay": (
        change("app_steps", [{"weight": 50}, {"weight": 50}, {"weight": 100}]),
        ["app_steps[1].weight: 50 does not rise above the 50 of the step before"],
    ),
    "steps that end early": (
        change("app_steps", [{"weight": "10"}, {"weight": "90"}]),
        ["app_steps[1].weight: the last step must be 100 percent, not 90"],
    ),
    "step of nothing": (
        change("app_steps", [{"weight": 0}, {"weight": 100}]),
        ["app_steps[0].weight: must be 1 to 100 percent, not 0"],
    ),
    "step above all": (
        change("app_steps", [{"weight": 101}]),
        [
            "app_steps[0].weight: must be 1 to 100 percent, not 101",
            "app_steps[0].weight: the last step must be 100 percent, not 101",
        ],
    ),
    "step without weight": (
        change("app_steps", [{"watch_seconds": 1}]),
        ["app_steps[0].weight: is missing; give Share of the traffic for the new release, 1 to 100 percent"],
    ),
    "step that watches backwards": (
        change("app_steps", [{"weight": 100, "watch_seconds": -5}]),
        ["app_steps[0].watch_seconds: must be at least 0, not -5"],
    ),
    # -- services --
    "no services": (change("app_services", []), ["app_services: is empty; name at least one service"]),
    "service name": (
        (svc(1, "name", "Front_End"),),
        [f"{S1}.name: 'Front_End' {NAME}"],
    ),
    "service name twice": (
        (svc(1, "name", "backend"), svc(1, "depends_on", [])),
        [f"{S1}.name: backend is the name of {S0}"],
    ),
    "same port twice": (
        svc(1, "port", 3001),
        [
            f"{S1}.ports.blue: port 3001 is already {S0}.ports.blue",
            f"{S1}.ports.green: port 13001 is already {S0}.ports.green",
        ],
    ),
    "blue of one is green of another": (
        svc(1, "port", 13001),
        [f"{S1}.ports.blue: port 13001 is already {S0}.ports.green"],
    ),
    "same port in both slots": (
        svc(0, "ports", {"blue": 4000, "green": 4000}),
        [f"{S0}.ports.green: port 4000 is already {S0}.ports.blue"],
    ),
    "port zero": (svc(0, "port", 0), [f"{S0}.ports.blue: port 0 is not between 1 and 65535"]),
    "port beyond all": (
        svc(0, "ports", {"blue": 65536, "green": 4000}),
        [f"{S0}.ports.blue: port 65536 is not between 1 and 65535"],
    ),
    "offset beyond all": (svc(0, "port", 60000), [f"{S0}.ports.green: port 70000 is not between 1 and 65535"]),
    "nothing is routed": (
        svc(1, "routed", "no"),
        ["app_services: none is routed, so there is no traffic to move; set routed on one of them"],
    ),
    "depends on nobody": (
        svc(1, "depends_on", ["bakend"]),
        [f"{S1}.depends_on: 'bakend' is no service; did you mean backend?"],
    ),
    "depends on itself": (svc(0, "depends_on", ["backend"]), [f"{S0}.depends_on: backend depends on itself"]),
    "depends in a circle": (
        svc(0, "depends_on", ["frontend"]),
        ["app_services: depends_on goes round in a circle: backend, frontend"],
    ),
    "no time to start": (svc(0, "start_seconds", 0), [f"{S0}.start_seconds: must be at least 1, not 0"]),
    "no time to stop": (svc(0, "stop_seconds", 0), [f"{S0}.stop_seconds: must be at least 1, not 0"]),
    "negative drain": (svc(0, "drain_seconds", -1), [f"{S0}.drain_seconds: must be at least 0, not -1"]),
    # -- probes --
    "relative health path": (svc(0, "health/path", "health"), [f"{S0}.health.path: 'health' must begin with /"]),
    "relative ready path": (svc(0, "ready", {"path": "r"}), [f"{S0}.ready.path: 'r' must begin with /"]),
    "relative version path": (svc(0, "version/path", "v"), [f"{S0}.version.path: 'v' must begin with /"]),
    "status of nothing": (svc(0, "health/status", [200, 20]), [f"{S0}.health.status: 20 is not an HTTP status code"]),
    "no status": (svc(0, "health/status", []), [f"{S0}.health.status: is empty; name at least one status code"]),
    "status is a number": (svc(0, "health/status", 200), [f"{S0}.health.status: must be a list, not 200"]),
    "bad body pattern": (
        svc(0, "health/body", "(ok"),
        [f"{S0}.health.body: '(ok' is no regular expression: missing ), unterminated subpattern at position 0"],
    ),
    "bad header pattern": (
        svc(0, "ready", {"path": "/", "expect_headers": {"X-Mode": "*"}}),
        [f"{S0}.ready.expect_headers.X-Mode: '*' is no regular expression: nothing to repeat at position 0"],
    ),
    "probe without time": (svc(0, "health/within_ms", 0), [f"{S0}.health.within_ms: must be at least 1, not 0"]),
    "no success": (svc(0, "health/successes", 0), [f"{S0}.health.successes: must be at least 1, not 0"]),
    "no timeout": (svc(0, "health/timeout_seconds", 0), [f"{S0}.health.timeout_seconds: must be at least 0.1, not 0"]),
    # -- artifact --
    "no artifact": (artifact(), [f"{S0}.artifact: {ONE} none"]),
    "archive and git": (
        artifact(archive="/a.tar", sha256=SHA, git="/r.git", ref="v1"),
        [f"{S0}.artifact: {ONE} archive and git"],
    ),
    "archive and python": (
        artifact(archive="/a.tar", sha256=SHA, python=["a==1"]),
        [f"{S0}.artifact: {ONE} archive and python"],
    ),
    "archive without sum": (
        artifact(archive="/a.tar"),
        [f"{S0}.artifact.sha256: must be the SHA-256 of the archive, 64 hexadecimal digits"],
    ),
    "wheel with a bad sum": (
        artifact(wheel="/a.whl", sha256=SHA[:-1] + "g"),
        [f"{S0}.artifact.sha256: must be the SHA-256 of the wheel, 64 hexadecimal digits"],
    ),
    "short sum": (
        artifact(archive="/a.tar", sha256=SHA[:-2]),
        [f"{S0}.artifact.sha256: must be the SHA-256 of the archive, 64 hexadecimal digits"],
    ),
    "apt and git": (
        (change("app_strategy", "rolling"), artifact(apt=APT, git="/r.git", ref="v1")),
        [f"{S0}.artifact: {ONE} git and apt"],
    ),
    "apt without version": (
        artifact(apt={"package": "shop"}),
        [
            f"{S0}.artifact.apt.version: is missing; give The exact version, with epoch and revision, "
            "for example 1.3.0-1"
        ],
    ),
    "apt that is no package and no version": (
        (change("app_strategy", "rolling"), artifact(apt={"package": "Shop", "version": "1.3.*"})),
        [
            f"{S0}.artifact.apt.package: 'Shop' is no name of a Debian package, like shop-api",
            f"{S0}.artifact.apt.version: '1.3.*' is no exact version of a Debian package, like 1.3.0-1",
        ],
    ),
    "apt with other conffiles": (
        artifact(apt={**APT, "conffiles": "ask"}),
        [f"{S0}.artifact.apt.conffiles: must be one of keep, replace, not 'ask'"],
    ),
    **{
        f"apt and {strategy}": (
            (change("app_strategy", strategy), artifact(apt=APT)),
            [
                f"app_strategy: {strategy} runs two releases beside each other, but a host has one version of the "
                f"package shop ({S0}.artifact.apt); take rolling or recreate"
            ],
        )
        for strategy in ("blue_green", "canary")
    },
    "apt in two versions": (
        (
            change("app_strategy", "recreate"),
            artifact(apt=APT),
            svc(1, "artifact", {"apt": {"package": "shop", "version": "1:1.3.0-2"}}),
        ),
        [f"{S1}.artifact.apt: differs from {S0}.artifact.apt, and a host has one version of the package shop"],
    ),
    "git without ref": (artifact(git="/r.git"), [f"{S0}.artifact.ref: is missing; name a tag or a commit"]),
    "requirement without version": (
        artifact(python=["datasette==0.65.1", "uvicorn"]),
        [f"{S0}.artifact.python[1]: 'uvicorn' must name an exact version, like datasette==0.65.1"],
    ),
    "requirement with a range": (
        artifact(python=["uvicorn>=0.30"]),
        [f"{S0}.artifact.python[0]: 'uvicorn>=0.30' must name an exact version, like datasette==0.65.1"],
    ),
    "requirement with a star": (
        artifact(python=["uvicorn==0.30.*"]),
        [f"{S0}.artifact.python[0]: 'uvicorn==0.30.*' must name an exact version, like datasette==0.65.1"],
    ),
    "requirement with an option": (
        artifact(python=["--index-url=http://x"]),
        [f"{S0}.artifact.python[0]: '--index-url=http://x' must name an exact version, like datasette==0.65.1"],
    ),
    "negative strip": (
        artifact(archive="/a.tar", sha256=SHA, strip_components=-1),
        [f"{S0}.artifact.strip_components: must be at least 0, not -1"],
    ),
    # -- command, environment, secrets, files --
    "empty command": (svc(0, "command", "  "), [f"{S0}.command: is empty"]),
    "command of two lines": (svc(0, "command", "a\nb"), [f"{S0}.command: must be one line"]),
    "variable with a hyphen": (
        svc(0, "environment", {"A-B": "1"}),
        [f"{S0}.environment.A-B: is no name of an environment variable (letters, digits and _)"],
    ),
    "variable with a digit first": (
        svc(0, "secrets", {"1A": "secret"}),
        [f"{S0}.secrets.1A: is no name of an environment variable (letters, digits and _)"],
    ),
    "variable that injects": (
        svc(0, "environment", {"A\nB": "1"}),
        [f"{S0}.environment.A\nB: is no name of an environment variable (letters, digits and _)"],
    ),
    "variable of the runtime": (
        svc(0, "environment", {"PORT": "1"}),
        [f"{S0}.environment.PORT: is set by the runtime; choose another name"],
    ),
    "secret of the runtime": (
        svc(0, "secrets", {"DEPLOYED_AT": "now!"}),
        [f"{S0}.secrets.DEPLOYED_AT: is set by the runtime; choose another name"],
    ),
    "variable without value": (svc(0, "environment", {"A": None}), [f"{S0}.environment.A: must be a string"]),
    "variable with a list": (svc(0, "environment", {"A": [1]}), [f"{S0}.environment.A: must be a string"]),
    "secret without value": (svc(0, "secrets", {"DB_PASSWORD": None}), [f"{S0}.secrets.DB_PASSWORD: must be a string"]),
    "secret with a mapping": (
        svc(0, "secrets", {"DB_PASSWORD": {"a": SECRET}}),
        [f"{S0}.secrets.DB_PASSWORD: must be a string"],
    ),
    "empty secret": (svc(0, "secrets", {"DB_PASSWORD": ""}), [f"{S0}.secrets.DB_PASSWORD: {PLACEHOLDER}"]),
    "blank secret": (svc(0, "secrets", {"DB_PASSWORD": " \n"}), [f"{S0}.secrets.DB_PASSWORD: {PLACEHOLDER}"]),
    "same key twice": (
        svc(0, "secrets", {"MODE": SECRET, "DB_PASSWORD": SECRET}),
        [f"{S0}.secrets.MODE: is also in environment; keep one"],
    ),
    "secret in the command": (
        svc(0, "command", f"serve --password={SECRET}"),
        [f"{S0}.command: contains the secret DB_PASSWORD; use $DB_PASSWORD, the command line is public"],
    ),
    "absolute file": (svc(0, "files", {"/etc/passwd": "x"}), [f"{S0}.files: '/etc/passwd' {INSIDE}"]),
    "file that climbs": (svc(0, "files", {"a/../../b": "x"}), [f"{S0}.files: 'a/../../b' {INSIDE}"]),
    "file without a name": (svc(0, "files", {"": "x"}), [f"{S0}.files: '' {INSIDE}"]),
    "file that is a directory": (svc(0, "files", {"conf/": "x"}), [f"{S0}.files: 'conf/' {INSIDE}"]),
    "file that is its directory": (svc(0, "files", {".": "x"}), [f"{S0}.files: '.' {INSIDE}"]),
    "file of no text": (svc(0, "files", {"a.ini": {"b": SECRET}}), [f"{S0}.files.a.ini: must be text"]),
    # -- all that is wrong is said at once --
    "three at once": (
        (change("app_home", "x"), svc(0, "port", 0), svc(1, "command", "")),
        [
            "app_home: 'x' must be an absolute path",
            f"{S0}.ports.blue: port 0 is not between 1 and 65535",
            f"{S1}.command: is empty",
        ],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, sentences = BAD[case]
    values = changed(*(changes if isinstance(changes, tuple) else (changes,)))
    found = problems(values)
    assert found == sentences
    assert SECRET not in " ".join(found)


def test_the_good_model_is_good():
    model, found = _model.load(good(), SPECS, "deploy")
    assert list(found) == []
    assert [service["ports"] for service in model["app_services"]] == [
        {"blue": 3001, "green": 13001},
        {"blue": 3002, "green": 13002},
    ]
    assert model["watch_seconds"] == 60
    assert model["runtime_host_build_seconds"] == 600


@pytest.mark.requirement("APP-01")
def test_unknown_missing_and_duplicate_are_refused_with_the_key_path():
    assert problems(changed(svc(1, "prot", 1), svc(0, "health", ...))) == [
        f"{S0}.health: is missing; give The probe that proves the service healthy",
        f"{S1}.prot: unknown key; did you mean port?",
    ]
    assert problems(changed(svc(1, "ports", {"blue": 3002, "green": 3001}))) == [
        f"{S1}.ports.green: port 3001 is already {S0}.ports.blue"
    ]


@pytest.mark.parametrize(
    "word",
    ["changeme", "CHANGE_ME", "change-me", "change me", "TODO", "fixme", "xxx", "XXXXXX", "<password>", "<>"]
    + ["your-password", "your_password_here", "Your password", "placeholder", "...", " changeme "],
)
def test_placeholders_are_no_secrets(word):
    assert problems(changed(svc(0, "secrets", {"KEY": word}))) == [f"{S0}.secrets.KEY: {PLACEHOLDER}"]


@pytest.mark.parametrize("word", ["xx", "todolist", "changeme2!", "a<b>", "....", "placeholders", "p"])
def test_what_only_looks_like_a_placeholder_is_a_secret(word):
    assert problems(changed(svc(0, "secrets", {"KEY": word}))) == []


def test_a_survey_gives_strings():
    values = changed(
        change("app_keep_releases", "3"),
        change("watch_seconds", "10"),
        change("watch_error_rate_percent", "2.5"),
        change("app_steps", [{"weight": "25", "watch_seconds": "5"}, {"weight": "100"}]),
        svc(0, "port", "4001"),
        svc(0, "routed", "true"),
        svc(0, "health/status", ["200", "204"]),
        svc(0, "environment", {"WORKERS": 4, "DEBUG": False, "RATE": 0.5}),
    )
    model, found = _model.load(values, SPECS, "deploy")
    assert list(found) == []
    service = model["app_services"][0]
    assert model["app_keep_releases"] == 3
    assert model["watch_seconds"] == 10
    assert model["watch_error_rate_percent"] == 2.5
    assert model["app_steps"] == [
        {"weight": 25, "watch_seconds": 5, "hold": False},
        {"weight": 100, "watch_seconds": None, "hold": False},
    ]
    assert (service["port"], service["routed"], service["health"]["status"]) == (4001, True, [200, 204])
    made = _model.release_services(model["app_services"])[0]
    assert made["environment"] == {"WORKERS": "4", "DEBUG": "false", "RATE": "0.5"}


@pytest.mark.parametrize(
    "form",
    [
        {"archive": "/a.tar", "sha256": SHA},
        {"wheel": "/a.whl", "sha256": SHA},
        {"wheel": "/a.whl", "sha256": SHA, "python": ["a==1"]},
        {"git": "https://git.test/a.git", "ref": "v1"},
        {"python": ["a==1", "b===2.0", "c[d,e]==3", "f @ https://files.test/f.whl", "g == 4"]},
    ],
)
def test_every_form_of_artifact(form):
    assert problems(changed(artifact(**form))) == []


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
def test_a_package_where_one_release_at_a_time_is_on_a_host(strategy):
    same = ({"apt": dict(APT)}, {"apt": {**APT, "conffiles": "keep"}})
    values = changed(change("app_strategy", strategy), *(svc(i, "artifact", form) for i, form in enumerate(same)))
    model, found = _model.load(values, SPECS, "deploy")
    assert list(found) == []
    kept = {**APT, "conffiles": "keep"}
    assert _model.artifacts([model]) == {s["name"]: {"apt": kept} for s in model["app_services"]}
    other = _model.load(
        changed(change("app_strategy", strategy), artifact(apt={**APT, "version": "2"})), SPECS, "deploy"
    )
    assert _model.release_digest(other[0]) != _model.release_digest(model)


@pytest.mark.parametrize("verb", ["rollback", "status"])
def test_only_a_deploy_needs_what_makes_a_release(verb):
    values = changed(change("app_version", ...), *(svc(i, key, ...) for i in (0, 1) for key in ("artifact", "command")))
    assert problems(values, verb) == []
    assert problems(changed(svc(0, "artifact", {}), svc(0, "secrets", {"A": ""}), svc(0, "command", "")), verb) == []
    # The rest is checked as ever.
    assert problems(changed(svc(0, "port", 0)), verb) == [f"{S0}.ports.blue: port 0 is not between 1 and 65535"]
    assert problems(changed(svc(0, "health", ...)), verb) == [
        f"{S0}.health: is missing; give The probe that proves the service healthy"
    ]


def test_where_is_said_with_every_problem():
    found = _model.load(changed(change("app_home", "x"), svc(0, "port", 0)), SPECS, "deploy", "web1")[1]
    assert list(found) == [
        "app_home: 'x' must be an absolute path (on web1)",
        f"{S0}.ports.blue: port 0 is not between 1 and 65535 (on web1)",
    ]


def test_variables_of_others_are_none_of_our_business():
    assert problems({**good(), "ansible_user": "x", "myapp_port": 1, "application": 2}) == []


# Anything that a value may be replaced by, wherever the secret happens to be.
SECRETS = st.text(alphabet="ABCDEFGHJKMNPQRSTUVWXYZ23456789!%&", min_size=12, max_size=24)
PLACES = [
    ["app_services"],
    ["app_services", 0],
    ["app_services", 0, "secrets"],
    ["app_services", 0, "secrets", "DB_PASSWORD"],
    ["app_services", 0, "files"],
    ["app_services", 0, "files", "conf/app.ini"],
    ["app_services", 0, "port"],
    ["app_services", 0, "command"],
    ["app_services", 0, "artifact"],
    ["app_services", 1, "health"],
    ["app_name"],
    ["app_steps"],
]
SHAPES = {
    "list": lambda secret: [secret],
    "mapping": lambda secret: {"DB_PASSWORD": secret},
    "services": lambda secret: {"backend": {"secrets": {"DB_PASSWORD": secret}}},
    "service": lambda secret: [{"secrets": {"DB_PASSWORD": secret}}],
    "long": lambda secret: {"a": "b" * 30, "c": [secret]},
}


@given(SECRETS, st.sampled_from(PLACES), st.sampled_from(sorted(SHAPES)))
def test_a_secret_is_in_no_problem(secret, way, shape):
    values = changed(
        svc(0, "secrets", {"DB_PASSWORD": secret, "EMPTY": "", "MODE": secret}),
        svc(0, "command", f"serve {secret}"),
        svc(0, "files", {"conf/app.ini": f"password={secret}", "../x": secret}),
    )
    found = problems(values)
    assert len(found) == 5
    place = values
    for part in way[:-1]:
        place = place[part]
    place[way[-1]] = SHAPES[shape](secret)
    found += problems(values)
    assert len(found) > 5
    assert secret not in " ".join(found)


# -- the fleet --------------------------------------------------------------------------------------------------


def fleet(*changes_per_host, verb="deploy", targets=("web1", "web2"), routers=("lb1",)):
    """Targets web1 and web2 on addresses of their own, router lb1, state host st1."""
    hosts = dict.fromkeys([*targets, *routers, "st1"])
    models = {}
    for number, host in enumerate(hosts):
        values = changed(change("app_address", f"10.0.0.{number + 1}"))
        for wanted, one in changes_per_host:
            if wanted == host:
                one(values)
        models[host], found = _model.load(values, SPECS, verb)
        assert list(found) == [], host
    return list(_model.check_fleet(models, list(targets), list(routers), verb))


def test_a_fleet_that_agrees():
    assert fleet() == []
    assert fleet(("web2", change("app_home", "/other")), ("web2", svc(0, "port", 5001))) == []


def test_a_batch_that_is_more_than_may_be_unavailable():
    rolling = [("app_strategy", "rolling"), ("app_batches", ["1", "100%"]), ("app_max_unavailable", "50%")]
    changes = [(host, change(*one)) for host in ("web1", "web2", "web3", "lb1", "st1") for one in rolling]
    assert fleet(*changes, targets=("web1", "web2", "web3")) == [
        "app_batches: a batch of 2 is more than app_max_unavailable allows: 1"
    ]
    assert fleet(*changes) == []


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        (
            [("web2", change("app_name", "other"))],
            ["app_name on web2: is 'other', but 'clickview' on web1"],
        ),
        (
            [("st1", change("app_environment", "staging"))],
            ["app_environment on st1: is 'staging', but 'production' on web1"],
        ),
        (
            [("lb1", change("app_version", "1.4.0"))],
            ["app_version on lb1: is '1.4.0', but '1.3.0' on web1"],
        ),
        (
            [("web2", change("app_keep_releases", 2))],
            ["app_keep_releases on web2: is 2, but 5 on web1"],
        ),
        (
            [("web2", change("app_steps", [{"weight": 100}]))],
            ["app_steps on web2: is [{'hold': False, 'weight': 100, 'watch_seconds': None}], but None on web1"],
        ),
        (
            [("lb1", change("app_router_members", "local"))],
            ["app_router_members on lb1: is 'local', but 'all' on web1"],
        ),
        (
            [("web2", svc(1, "name", "portal"))],
            ["app_services on web2: has other services than web1; every target runs the same"],
        ),
        (
            [("web2", change("app_address", "10.0.0.1"))],
            [
                f"app_services[{i}].ports.{slot} on web2: port {port} of 10.0.0.1 is already "
                f"app_services[{i}].ports.{slot} on web1"
                for i, slot, port in (
                    (0, "blue", 3001),
                    (0, "green", 13001),
                    (1, "blue", 3002),
                    (1, "green", 13002),
                )
            ],
        ),
        (
            [("web2", svc(0, "version/value", "r7"))],
            ["app_services: version.value differs between targets; a release is one version"],
        ),
    ],
)
def test_a_fleet_that_disagrees(changes, sentences):
    assert fleet(*changes) == sentences


def test_targets_on_one_machine_have_ports_of_their_own():
    same = [("web2", change("app_address", "10.0.0.1"))]
    moved = [("web2", svc(0, "port", 4001)), ("web2", svc(1, "port", 4002))]
    assert fleet(*same, *moved) == []


def test_a_local_router_is_a_target():
    local = [(host, change("app_router_members", "local")) for host in ("web1", "web2", "lb1", "st1")]
    assert fleet(*local) == ["app_router_members: is local, but the router lb1 is no target"]
    assert fleet(*local, routers=("web1", "web2")) == []


def test_a_rollback_does_not_ask_what_the_new_version_answers():
    assert fleet(("web2", svc(0, "version/value", "r7")), verb="rollback") == []


@pytest.mark.parametrize(
    ("groups", "sentences"),
    [
        ({"targets": ["a"], "routers": ["a"], "state": ["a"]}, []),
        (
            {},
            [
                "inventory group targets: is missing or empty; it names the hosts that run the services",
                "inventory group routers: is missing or empty; it names the hosts that send the traffic",
                "inventory group state: is missing or empty; it names the hosts that keeps the journal",
            ],
        ),
        (
            {"targets": [], "routers": ["b"], "state": ["c"]},
            ["inventory group targets: is missing or empty; it names the hosts that run the services"],
        ),
        (
            {"targets": ["a"], "routers": ["b"], "state": ["c", "d"]},
            ["inventory group state: must be one host, not 2"],
        ),
    ],
)
def test_groups(groups, sentences):
    assert list(_model.check_groups(groups)) == sentences


# -- the runtime of images ---------------------------------------------------------------------------------------


def composed(*changes):
    values = good()
    values["app_runtime"] = "compose"
    values["runtime_compose_files"] = ["compose.yml"]
    for service in values["app_services"]:
        for key in ("artifact", "command", "files"):
            service.pop(key, None)
        service["image"] = "shop/" + service["name"]
    for one in changes:
        one(values)
    return values


IMAGE = "is missing; give The image, for example registry.example.com/shop/api"


@pytest.mark.parametrize(
    ("one", "sentences"),
    [
        (svc(1, "image", ...), [f"{S1}.image: {IMAGE}"]),
        (svc(1, "command", "run"), [f"{S1}.command: is not for the runtime compose; remove it"]),
        (svc(1, "artifact", {"git": "x", "ref": "y"}), [f"{S1}.artifact: is not for the runtime compose; remove it"]),
        (svc(1, "files", {"a": "b"}), [f"{S1}.files: is not for the runtime compose; remove it"]),
        (svc(1, "container_port", 70000), [f"{S1}.container_port: port 70000 is not between 1 and 65535"]),
        (
            change("runtime_compose_pull", "often"),
            ["runtime_compose_pull: must be one of missing, always, never, not 'often'"],
        ),
        (
            change("runtime_compose_file", "x"),
            ["runtime_compose_file: unknown key; did you mean runtime_compose_files?"],
        ),
    ],
)
def test_bad_input_of_images(one, sentences):
    assert problems(composed()) == []
    assert problems(composed(one)) == sentences


CONTAINED = (svc(1, "artifact", ...), svc(1, "command", ...), svc(1, "image", "shop/web"))


@pytest.mark.parametrize(
    ("more", "sentences"),
    [
        ((), []),
        ((svc(1, "container_port", 80),), []),
        (
            (svc(1, "command", "serve"), svc(1, "files", {"a": "b"})),
            [f"{S1}.{key}: is not for a service with an image; remove it" for key in ("command", "files")],
        ),
        (
            (svc(1, "image", "shop/web:latest"),),
            [f"{S1}.image: 'shop/web:latest' moves; name another tag, or a digest"],
        ),
        ((svc(1, "container_port", 0),), [f"{S1}.container_port: port 0 is not between 1 and 65535"]),
        ((svc(0, "container_port", 80),), [f"{S0}.container_port: is not for the runtime host; remove it"]),
        (
            (svc(1, "environment", {"DOCKER_HOST": "x", "DOCKERS": "y"}), svc(1, "secrets", {"HOME": "hunter2"})),
            [
                f"{S1}: the variable {key} would change what runs the container; set it in the image"
                for key in ("DOCKER_HOST", "HOME")
            ],
        ),
    ],
)
def test_a_service_of_a_host_may_be_an_image(more, sentences):
    found = problems(changed(*CONTAINED, *more))
    assert len(found) == len(sentences)
    assert all(one.startswith(sentence) for one, sentence in zip(found, sentences)), found


def test_a_release_of_a_host_may_be_mixed():
    model = _model.load(changed(*CONTAINED), SPECS, "deploy")[0]
    made = _model.release_services(model["app_services"])
    assert "artifact" in made[0] and made[1] == {
        "name": "frontend",
        "image": "shop/web",
        "container_port": model["app_services"][1]["port"],
        "environment": {},
        "secrets": {},
    }
    assert _model.artifacts([model])["frontend"] == {"image": "shop/web"}
    other = _model.load(changed(*CONTAINED, svc(1, "image", "shop/other")), SPECS, "deploy")[0]
    assert _model.release_digest(model) != _model.release_digest(other)


def test_a_command_is_needed_beside_an_artifact():
    assert problems(changed(svc(1, "command", ...))) == [
        f"{S1}.command: is missing; give Shell words that start the service in the foreground"
    ]


def composed_digest(*changes, files=("services: {}",)):
    model, found = _model.load(composed(*changes), SPECS, "deploy")
    assert list(found) == []
    model["compose_files"] = [{"name": f"{number}.yml", "content": text} for number, text in enumerate(files)]
    return _model.release_digest(model)


@pytest.mark.parametrize(
    "one",
    [
        svc(0, "image", "shop/backend:2"),
        svc(0, "container_port", 8080),
        svc(0, "environment", {"MODE": "slow"}),
        svc(0, "secrets", {"DB_PASSWORD": SECRET + "x"}),
        change("runtime_compose_variables", {"A": "1"}),
    ],
)
def test_what_makes_another_release_of_images(one):
    assert composed_digest(one) != composed_digest()


def test_the_content_and_order_of_compose_files_make_the_release_and_not_where_they_lie():
    assert composed_digest(change("runtime_compose_files", ["/elsewhere/compose.yml"])) == composed_digest()
    assert len({composed_digest(files=files) for files in (["a"], ["b"], ["a", "b"], ["b", "a"], ["ab"])}) == 5


def test_the_role_hands_over_what_the_digest_was_made_of():
    """Booleans and numbers too, which Ansible gives to the role as they are written in the inventory."""
    odd = {"A": True, "B": 5, "C": "x"}
    model, _found = _model.load(composed(svc(0, "environment", odd)), SPECS, "deploy")
    raw = composed(svc(0, "environment", odd), svc(0, "port", "3001"))["app_services"]
    assert _model.compose_services(raw) == _model.compose_services(model["app_services"])
    assert _model.compose_services(raw)[0]["environment"] == {"A": "true", "B": "5", "C": "x"}


# -- what follows -----------------------------------------------------------------------------------------------


def digest(*changes):
    model, found = _model.load(changed(*changes), SPECS, "deploy")
    assert list(found) == []
    return _model.release_digest(model)


def shuffled(value, order):
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_keys(order):
    values = changed(svc(0, "environment", {"A": "1", "B": "2", "C": "3"}), svc(0, "files", {"a": "1", "b": "2"}))
    plain = _model.release_digest(_model.load(values, SPECS, "deploy")[0])
    mixed = _model.load(shuffled(copy.deepcopy(values), order), SPECS, "deploy")[0]
    assert _model.release_digest(mixed) == plain


@pytest.mark.parametrize(
    "one",
    [
        svc(0, "artifact/archive", "/elsewhere/backend-1.tar.gz"),
        change("app_home", "/other"),
        change("app_url", "http://other.test"),
        change("watch_seconds", 5),
        svc(0, "port", 4001),
        svc(0, "health/path", "/other"),
        svc(0, "start_seconds", 5),
    ],
)
def test_what_does_not_make_the_release_does_not_change_it(one):
    assert digest(one) == digest()


CHANGES = {
    "code": svc(0, "artifact/sha256", "60" * 32),
    "strip": svc(0, "artifact/strip_components", 1),
    "requirement": svc(1, "artifact/python", ["datasette==0.65.2"]),
    "another form": artifact(wheel="/a.whl", sha256="61" * 32),
    "git ref": artifact(git="/r.git", ref="v2"),
    "another git ref": artifact(git="/r.git", ref="v3"),
    "another git": artifact(git="/s.git", ref="v2"),
    "command": svc(1, "command", "datasette serve"),
    "environment": svc(0, "environment/MODE", "slow"),
    "new variable": svc(0, "environment/NEW", "1"),
    "secret": svc(0, "secrets/DB_PASSWORD", "another-secret"),
    "file": svc(0, "files", {"conf/app.ini": "[a]\nb=2\n"}),
    "file's name": svc(0, "files", {"conf/b.ini": "[a]\nb=1\n"}),
    "name": svc(1, "name", "portal"),
}


def test_every_change_of_what_makes_the_release_changes_it():
    assert len({digest(), *(digest(one) for one in CHANGES.values())}) == len(CHANGES) + 1


def test_release_id():
    one = _model.release_id("1.3.0", ["a"])
    assert re.fullmatch(r"1\.3\.0-[0-9a-f]{8}", one)
    assert _model.release_id("1.3.0", ["a", "a", "a"]) == one  # another target that is alike
    assert _model.release_id("1.3.0", ["a", "b"]) == _model.release_id("1.3.0", ["b", "a", "b"])
    assert len({one, _model.release_id("1.3.1", ["a"]), _model.release_id("1.3.0", ["b"])}) == 3


@st.composite
def graphs(draw):
    """Services in a random order whose dependencies have no circle."""
    count = draw(st.integers(1, 8))
    services = [
        {"name": f"s{i}", "depends_on": [f"s{j}" for j in range(i) if draw(st.booleans())]} for i in range(count)
    ]
    return draw(st.permutations(services))


@given(graphs())
def test_start_order_is_topological(services):
    ordered = [service["name"] for service in _model.start_order(services)]
    assert sorted(ordered) == sorted(service["name"] for service in services)
    for service in services:
        for other in service["depends_on"]:
            assert ordered.index(other) < ordered.index(service["name"])


@given(graphs(), st.integers(2, 4))
def test_what_is_caught_in_a_circle_is_left_out_and_refused(services, length):
    ring = [{"name": f"r{i}", "depends_on": [f"r{(i + 1) % length}"]} for i in range(length)]
    ordered = {service["name"] for service in _model.start_order([*services, *ring])}
    assert ordered == {service["name"] for service in services}


def test_slots_services_come_in_start_order_with_their_own_ports_and_probes():
    values = changed(svc(0, "ready", {"path": "/ready", "successes": 3}), svc(1, "host_header", "app.test"))
    values["app_services"].reverse()
    model = _model.load(values, SPECS, "deploy")[0]
    services = _model.slot_services(model, "green", {"backend": "1.3.0"})
    assert [(s["name"], s["port"]) for s in services] == [("backend", 13001), ("frontend", 13002)]
    assert [(p["name"], p["url"]) for p in services[0]["probes"]] == [
        ("backend ready", "http://127.0.0.1:{port}/ready"),
        ("backend health", "http://127.0.0.1:{port}/health"),
        ("backend version", "http://127.0.0.1:{port}/version"),
    ]
    assert services[0]["probes"][0]["successes"] == 3
    assert services[0]["probes"][2] == {
        "name": "backend version",
        "url": "http://127.0.0.1:{port}/version",
        "version_path": "version",
        "versions": ["1.3.0"],
        "successes": 1,
    }
    # Nothing expected and no key: any version will do, but an empty answer won't. The service's own host is asked
    # without the virtual host's name.
    assert services[1]["probes"][-1]["body"] == "."
    assert "headers" not in services[1]["probes"][-1]


def test_version_probe_through_the_router():
    model = _model.load(changed(svc(1, "host_header", "app.test")), SPECS, "deploy")[0]
    probe = _model.version_probe(model["app_services"][1], "http://lb/", "1.3.0", None, "1.2.0", successes=5)
    assert probe["url"] == "http://lb/-/version"
    assert probe["versions"] == ["1.3.0", "1.2.0"]
    assert probe["headers"] == {"Host": "app.test"}
    assert probe["successes"] == 5


def test_router_base_takes_the_nearest():
    model = _model.load(good(), SPECS, "deploy")[0]
    service = model["app_services"][1]
    order = [("a", service, "router_url"), ("b", model, "app_router_url"), ("c", service, "url")]
    assert _model.router_base(service, model) == "http://app.test:8080"
    for host, place, key in reversed(order):
        place[key] = f"http://{host}"
        assert _model.router_base(service, model) == f"http://{host}"


def test_upstreams_have_every_slot_of_every_member_with_its_weight():
    models = {}
    for number, host in enumerate(("web1", "web2"), 1):
        values = changed(change("app_address", f"10.0.0.{number}"), change("app_name", "click-view"))
        models[host] = _model.load(values, SPECS, "deploy")[0]
    upstreams = _model.upstreams(models, ["web1", "web2"], {"green": 25, "blue": 75})
    assert [upstream["name"] for upstream in upstreams] == ["click_view_frontend"]  # the backend is not routed
    assert upstreams[0]["members"] == [
        {"address": "10.0.0.1", "port": 3002, "slot": "blue", "weight": 75},
        {"address": "10.0.0.1", "port": 13002, "slot": "green", "weight": 25},
        {"address": "10.0.0.2", "port": 3002, "slot": "blue", "weight": 75},
        {"address": "10.0.0.2", "port": 13002, "slot": "green", "weight": 25},
    ]
    assert {m["weight"] for m in _model.upstreams(models, ["web1"], {"blue": 100})[0]["members"]} == {100, 0}


def test_answers_are_the_version_unless_the_service_says_something_else():
    model = _model.load(changed(svc(0, "version/value", "r7")), SPECS, "deploy")[0]
    assert _model.answers(model) == {"backend": "r7", "frontend": "1.3.0"}


def test_release_services_are_plain_and_whole():
    model = _model.load(good(), SPECS, "deploy")[0]
    services = _model.release_services(model["app_services"])
    assert json.loads(json.dumps(services)) == services
    assert services[1] == {
        "name": "frontend",
        "artifact": {"python": ["datasette==0.65.1"], "strip_components": 0},
        "command": "datasette serve -p $PORT",
        "files": {},
        "environment": {},
        "secrets": {},
    }


def test_models_share_nothing_that_one_could_change_for_another():
    first = _model.load(good(), SPECS, "deploy")[0]
    first["app_pinned_releases"].append("x")
    first["app_services"][1]["environment"]["X"] = "1"
    second = _model.load(good(), SPECS, "deploy")[0]
    assert second["app_pinned_releases"] == []
    assert second["app_services"][1]["environment"] == {}


# -- Kubernetes -------------------------------------------------------------------------------------------------


def test_the_journal_is_where_the_model_says():
    assert _model.store(_model.load(good(), SPECS, "deploy")[0]) == {"directory": "/var/lib/runbook/clickview"}
    given = (
        change("app_state_store", "kubernetes"),
        change("app_state_dir", ...),
        change("runtime_kubernetes_context", "production"),
        change("runtime_kubernetes_namespace", "shop"),
    )
    model, bad = _model.load(changed(*given), SPECS, "rollback")
    assert list(bad) == []
    assert _model.store(model) == {
        "context": "production",
        "namespace": "shop",
        "expected_server": "",
        "kubeconfig": "",
        "kubectl": ["kubectl"],
        "request_seconds": 10,
        "application": "clickview",
        "environment": "production",
    }


CLUSTER = (
    change("app_runtime", "kubernetes"),
    change("app_router", "kubernetes"),
    change("app_home", ...),
    change("runtime_kubernetes_context", "production"),
    change("runtime_kubernetes_namespace", "shop"),
    svc(0, "artifact", ...),
    svc(0, "image", "registry.test:5000/shop/api:1.3.0"),
    svc(0, "command", ...),
    svc(1, "artifact", ...),
    svc(1, "image", f"registry.test/shop/web@sha256:{SHA}"),
    svc(1, "port", 3001),  # every pod has an address of its own
)


def test_a_fleet_is_wholly_in_the_cluster_or_not_at_all():
    assert fleet(*(("web2", one) for one in CLUSTER)) == [
        "app_runtime: is kubernetes on web2 only; a router reaches pods or hosts, not both"
    ]


def test_a_model_for_kubernetes_has_nothing_wrong_and_one_port_for_both_slots():
    model, bad = _model.load(changed(*CLUSTER), SPECS, "deploy")
    assert list(bad) == []
    assert [service["ports"] for service in model["app_services"]] == [{"blue": 3001, "green": 3001}] * 2
    assert _model.router_services(model) == [{"name": "frontend", "port": 3001}]
    assert _model.artifacts([model])["backend"] == {"image": "registry.test:5000/shop/api:1.3.0"}


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        (
            [change("runtime_kubernetes_context", ...), change("runtime_kubernetes_namespace", "")],
            [
                "runtime_kubernetes_context: is missing; name the context of the kubeconfig; the current one is never "
                "taken",
                "runtime_kubernetes_namespace: is missing; name the namespace; that of the context is never taken",
            ],
        ),
        (
            [change("app_strategy", "canary"), change("router_kubernetes_share", "ingress")],
            ["router_kubernetes_ingress: is missing; name the Ingress that leads to the Services"],
        ),
        (
            [change("router_kubernetes_share", "mesh"), change("router_kubernetes_scale_seconds", 0)],
            ["router_kubernetes_share: must be one of replicas, ingress, not 'mesh'"],
        ),
        (
            [change("router_kubernetes_scale_seconds", 0), change("router_kubernetes_share_within_percent", 50)],
            [
                "router_kubernetes_scale_seconds: must be at least 1, not 0",
                "router_kubernetes_share_within_percent: must be 0 to 50 percentage points, not 50",
            ],
        ),
        (
            [change("runtime_kubernetes_autoscaling", {"min": 3, "max": 2, "cpu_percent": 0})],
            [
                "runtime_kubernetes_autoscaling.min: 3 is more than max, 2",
                "runtime_kubernetes_autoscaling.cpu_percent: must be at least 1, not 0",
            ],
        ),
        (
            [change("runtime_kubernetes_autoscaling", {"min": 1})],
            ["runtime_kubernetes_autoscaling.max: is missing; give Greatest number of pods"],
        ),
        (
            [change("runtime_kubernetes_services", {"backnd": {"replicas": 3}})],
            ["runtime_kubernetes_services.backnd: is no service; did you mean backend?"],
        ),
        (
            [svc(0, "image", ...), artifact(archive="/a.tar", sha256=SHA), svc(0, "command", "x")],
            [
                f"{S0}.image: is missing; give The image, for example registry.example.com/shop/api",
                f"{S0}.artifact: is not for the runtime kubernetes; remove it",
            ],
        ),
        (
            [change("app_strategy", "rolling")],
            ["app_strategy: rolling goes from host to host, and a namespace is one; use blue_green or canary"],
        ),
    ],
)
def test_bad_input_for_kubernetes(changes, sentences):
    assert problems(changed(*CLUSTER, *changes)) == sentences


def test_an_image_that_moves_is_refused():
    found = problems(changed(*CLUSTER, svc(0, "image", "shop/api:latest")))
    assert found == [f"{S0}.image: 'shop/api:latest' moves; name another tag, or a digest (@sha256:...)"]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("shop/api", "shop/api:1.3.0"),
        ("registry.test:5000/shop/api", "registry.test:5000/shop/api:1.3.0"),
        ("shop/api:7", "shop/api:7"),
        (f"shop/api@sha256:{SHA}", f"shop/api@sha256:{SHA}"),
    ],
)
def test_an_image_without_a_tag_gets_the_version(image, reference):
    assert _model.tagged(image, "1.3.0") == reference
    model, bad = _model.load(changed(*CLUSTER, svc(0, "image", image)), SPECS, "deploy")
    assert list(bad) == []
    assert _model.image_services(model["app_services"], "1.3.0")[0]["image"] == reference


def test_one_backend_of_kubernetes_needs_the_other():
    found = problems(changed(*CLUSTER, change("app_router", "nginx")))
    assert found == ["app_router: is nginx, but app_runtime is kubernetes; kubernetes goes with kubernetes only"]


def test_settings_that_make_a_release_change_its_digest():
    digests = {
        _model.release_digest(_model.load(changed(*CLUSTER, *more), SPECS, "deploy")[0])
        for more in (
            [],
            [change("runtime_kubernetes_replicas", 3)],
            [change("runtime_kubernetes_autoscaling", {"min": 2, "max": 4})],
            [change("runtime_kubernetes_kubeconfig", "/x")],
            [change("router_kubernetes_scale_seconds", 7)],
        )
    }
    assert len(digests) == 3
