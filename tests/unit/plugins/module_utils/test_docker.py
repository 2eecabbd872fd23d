# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import sys

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import (
    Docker,
    explain,
    parse_containers,
    run_command,
    services,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError


def raw(service="api", **state):
    return {
        "Id": f"id-{service}",
        "RestartCount": state.pop("restarts", 0),
        "Image": "sha256:1",
        "State": {"Status": "running", "Pid": 7, "ExitCode": 0, "Error": "", "OOMKilled": False, **state},
        "Config": {"Labels": {"com.docker.compose.service": service}},
    }


def parsed(**state):
    return parse_containers(json.dumps([raw(**state)]))[0]


@pytest.mark.parametrize(
    ("state", "trouble"),
    [
        ({}, ""),
        ({"Health": {"Status": "healthy"}}, ""),
        ({"Health": {"Status": "starting"}}, ""),
        ({"Health": {"Status": "none"}}, ""),
        ({"Health": {"Status": "unhealthy"}}, "its health check says unhealthy"),
        ({"Status": "created"}, "its container was never started"),
        ({"Status": "created", "Error": "port taken"}, "its container was never started: port taken"),
        ({"Status": "exited", "ExitCode": 3}, "its container ended (exit code 3)"),
        (
            {"Status": "exited", "ExitCode": 137, "OOMKilled": True},
            "its container ended (exit code 137, out of memory)",
        ),
        ({"Status": "restarting", "ExitCode": 1}, "its container ended and is being restarted (exit code 1)"),
        ({"Status": "paused"}, "its container is paused"),
    ],
)
def test_why_a_container_does_not_run(state, trouble):
    assert parsed(**state).trouble() == trouble
    assert parsed(**state).running is (trouble == "")


def test_what_is_read_of_a_container():
    one = parsed(restarts=4, StartedAt="2026-11-26T15:46:10.2Z")
    assert (one.id, one.service, one.pid, one.restarts, one.image) == ("id-api", "api", 7, 4, "sha256:1")
    assert one.started_at == "2026-11-26T15:46:10.2Z"


@pytest.mark.parametrize("text", ["{", "[{}]", '[{"Id": "x"}]', "[1]", "5"])
def test_an_answer_that_is_not_understood(text):
    with pytest.raises(RunbookError, match="not understood"):
        parse_containers(text)


def test_no_answer_is_no_container():
    assert parse_containers("") == [] == parse_containers("[]")


def test_one_off_commands_are_no_service():
    once = raw()
    once["Config"]["Labels"]["com.docker.compose.oneoff"] = "True"
    assert services(parse_containers(json.dumps([once]))) == {}
    assert list(services(parse_containers(json.dumps([once, raw(service="web")])))) == ["web"]


DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
    '"http://%2Fvar%2Frun%2Fdocker.sock/v1.50/containers/json": dial unix /run/docker.sock: connect: permission denied'
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "the Docker Engine does not answer at unix:///var/run/docker.sock: start it (systemctl start docker)",
        ),
        (DENIED, "this user may not use the Docker Engine"),
        ("docker: 'compose' is not a docker command.\nSee 'docker --help'", "the Compose plugin is missing"),
        ("docker: unknown command: docker compose\n\nRun 'docker --help'", "the Compose plugin is missing"),
        ("Error response from daemon: write /x: no space left on device", "the disk of the Docker Engine is full"),
        ("Error response from daemon: manifest for x:1 not found.\n", "manifest for x:1 not found"),
        ("a warning\n\nError: pull access denied.", "a warning Error: pull access denied"),
        ("", "it said nothing"),
    ],
)
def test_errors_become_sentences(said, told):
    assert explain(said).startswith(told)
    assert not explain(said).endswith(".")


class Engine:
    """Answers by the first words of a call."""

    def __init__(self, **answers):
        self.answers = answers
        self.calls = []

    def __call__(self, argv, environment, timeout, keep_open):
        self.calls.append((list(argv), dict(environment), timeout, tuple(keep_open)))
        return self.answers.get(argv[1], (0, "", ""))


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"version": (0, "20.10", ""), "compose": (0, "2.26.1-4\n", "")}, ""),
        ({"version": (0, "20.10", ""), "compose": (0, "v2.24.4\n", "")}, ""),
        ({"version": (0, "20.10", ""), "compose": (0, "2.24.3\n", "")}, "Docker Compose 2.24.3 is too old"),
        (
            {"version": (0, "20.10", ""), "compose": (1, "", "docker: 'compose' is not a docker command.")},
            "the Compose",
        ),
        ({"version": (0, "20.10", ""), "compose": (0, "dev\n", "")}, "the Compose plugin is missing"),
        (
            {"version": (1, "", "Cannot connect to the Docker daemon at tcp://a:1.")},
            "the Docker Engine does not answer at",
        ),
    ],
)
def test_whether_the_engine_can_be_used(answers, problem):
    found = Docker(run=Engine(**answers)).problem()
    assert found.startswith(problem) and bool(found) == bool(problem)


def test_our_environment_does_not_reach_the_compose_files(monkeypatch):
    monkeypatch.setenv("TAG", "latest")
    monkeypatch.setenv("COMPOSE_FILE", "other.yml")
    monkeypatch.setenv("DOCKER_HOST", "unix:///x.sock")
    engine = Engine()
    Docker(["sudo", "docker"], 5, engine, (3,)).attempt("ps")
    argv, environment, timeout, keep_open = engine.calls[0]
    assert (argv, timeout, keep_open) == (["sudo", "docker", "ps"], 5, (3,))
    assert environment["DOCKER_HOST"] == "unix:///x.sock" and "PATH" in environment
    assert not {"TAG", "COMPOSE_FILE"} & set(environment)


def test_containers_that_vanish_while_they_are_looked_at_are_passed_over():
    answers = (1, json.dumps([raw()]), "Error: No such container: gone")
    assert [one.service for one in Docker(run=Engine(container=answers)).inspect(["a", "gone"])] == ["api"]
    assert Docker(run=Engine(container=(1, "", "boom"))).inspect([]) == []
    with pytest.raises(RunbookError, match="boom"):
        Docker(run=Engine(container=(1, "", "boom"))).inspect(["a"])


def test_images():
    missing = (1, "[]\n", "Error response from daemon: no such image: x: No such image: x")
    assert Docker(run=Engine(image=missing)).image("x") is None
    found = (0, json.dumps([{"Id": "sha256:1", "RepoDigests": ["a@sha256:2"]}]), "")
    assert Docker(run=Engine(image=found)).image("x") == ("sha256:1", ("a@sha256:2",))
    assert Docker(run=Engine(image=missing)).untag("x") is False
    used = (
        1,
        "",
        "Error: conflict: unable to remove repository reference (must force) - container 1 is using its image",
    )
    assert Docker(run=Engine(image=used)).untag("x") is False
    with pytest.raises(RunbookError, match="image x cannot be removed: boom"):
        Docker(run=Engine(image=(1, "", "boom"))).untag("x")


def test_stopping_rounds_up_and_allows_for_it():
    engine = Engine()
    Docker(timeout_seconds=30, run=engine).stop("abc", 2.1)
    assert engine.calls[0][0][1:] == ["stop", "--time", "3", "abc"] and engine.calls[0][2] == 33


def test_no_log_is_no_failure():
    assert Docker(run=Engine(logs=(1, "", "configured logging driver does not support reading"))).logs("a", 5) == []
    assert Docker(run=Engine(logs=(0, "a\n\nb\n", "c\n"))).logs("a", 2) == ["b", "c"]


def test_a_command_is_bounded_and_ends_with_what_it_started():
    with pytest.raises(RunbookError, match="did not end within 1 s"):
        run_command([sys.executable, "-c", "import time; time.sleep(600)"], {}, 1.0)


def test_a_program_that_is_missing():
    with pytest.raises(RunbookError, match=r"no-such-docker is not on this host.*runtime_compose_command"):
        run_command(["no-such-docker", "ps"], {"PATH": "/usr/bin"}, 5.0)
    with pytest.raises(RunbookError, match="runtime_compose_command is empty"):
        Docker([])
