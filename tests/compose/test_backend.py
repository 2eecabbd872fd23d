"""Releases and slots of Docker Compose, on the real engine."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._connections import established
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import Docker, run_command
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.modules import compose_project
from conftest import Place, build, images, refusal
from engine import PREFIX, docker

from runbook_site import tree


@pytest.mark.requirement("BG-06")
def test_a_release_is_made_started_beside_the_other_and_stopped(
    place: Place, built: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_calls: list[list[str]] = []

    def watched(argv: Sequence[str], *rest: Any) -> tuple[int, str, str]:
        seen_calls.append(list(argv))
        return run_command(argv, *rest)

    monkeypatch.setattr(compose_project, "Docker", functools.partial(Docker, run=watched))
    assert place.read()["slots"]["blue"]["release"] == ""
    assert place.stage("1.0")["outcome"] == "made"
    assert place.stage("1.0") == {**place.stage("1.0"), "changed": False, "outcome": "present"}
    first = place.start("blue", "1.0")
    assert first["changed"] and all(answer["passed"] for answer in first["answers"])
    place.stage("1.1")
    place.start("green", "1.1", live="blue")
    assert (place.answer("blue")["version"], place.answer("green")["version"]) == ("1.0", "1.1")
    seen = place.read()
    assert seen["problem"] == "" and [slot["healthy"] for slot in seen["slots"].values()] == [True, True]
    assert seen["slots"]["green"]["services"]["api"]["image"] == built["1.1"]
    assert place.start("green", "1.1", live="blue")["changed"] is False
    assert place.prove("green", "1.1")["changed"] is False
    assert place.stop("blue", live="green")["changed"] is True
    assert place.stop("blue", live="green")["changed"] is False
    assert docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={place.project}-blue") == ""
    assert place.answer("green")["version"] == "1.1"
    assert "takes the traffic" in refusal(place.stop, "green", live="green")
    blue = [words for words in seen_calls if f"{place.project}-blue" in words]
    made, ended = ([words for words in blue if verb in words][-1] for verb in ("up", "down"))
    assert made[: made.index("up")] == ended[: ended.index("down")], "the same project and files in the same order"
    assert made.count("--file") == 2


def test_a_tag_that_moves_changes_nothing(place: Place) -> None:
    """Neither the release that runs, nor the same release started anew, nor an image that was removed by others."""
    tag = f"{place.project}-moving"
    first = build("1.0", f"{place.project[-4:]}m")
    docker("tag", first, f"{tag}:1.0")
    place.stage("1.0", image=tag)
    other = build("1.0x", f"{place.project[-4:]}m", built="another")
    docker("tag", other, f"{tag}:1.0")
    assert place.stage("1.0", image=tag)["outcome"] == "present"
    place.start("blue", "1.0")
    assert place.answer("blue")["version"] == "1.0"
    place.stop("blue")
    docker("image", "rm", f"{PREFIX}-{place.project[-4:]}m:1.0")  # its last name besides ours
    place.start("blue", "1.0")
    assert place.answer("blue")["version"] == "1.0"
    assert docker("inspect", "--format", "{{.Image}}", place.container("blue")) == first


def test_an_image_that_is_nowhere_is_named(place: Place) -> None:
    assert f"image {PREFIX}-none:1.0 of api can't be pulled" in refusal(place.stage, "1.0", image=f"{PREFIX}-none")
    text = refusal(place.stage, "1.0", image=f"{PREFIX}-none", pull="never")
    assert f"image {PREFIX}-none:1.0 of api is not on this host" in text
    assert place.read()["releases"] == []
    assert not list((place.home / "releases").iterdir()), "what was begun is swept away"


def test_values_of_every_kind_reach_the_container_and_no_argument_list(
    place: Place, built: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {
        "PLAIN": "x",
        "EMPTY": "",
        "SPACES": " a  b ",
        "QUOTES": 'it\'s "so"',
        "DOLLARS": "$HOME ${X} $$ \\$y",
        "SLASHES": "back\\slash \\n end\\",
        "LINES": "one\ntwo\r\nthree",
        "HASH": "a #b",
        "TICKS": "`id` $(id)",
        "LETTERS": "ü€",
    }
    seen: list[str] = []

    def watched(argv: Sequence[str], *rest: Any) -> tuple[int, str, str]:
        seen.append(" ".join(argv))
        return run_command(argv, *rest)

    monkeypatch.setattr(compose_project, "Docker", functools.partial(Docker, run=watched))
    place.stage("1.0", environment=odd, secret={"TOKEN": "s3cret-of-the-api"})
    place.start("blue", "1.0")
    environment = place.answer("blue")["env"]
    assert {key: environment[key] for key in odd} == odd
    assert environment["TOKEN"] == "s3cret-of-the-api"
    assert environment["SLOT"] == "blue" and environment["DEPLOYED_VERSION"] == "1.0"
    assert any(" up " in words for words in seen) and not [words for words in seen if "s3cret" in words]
    holding = [path for path in place.home.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert {(path.name, path.stat().st_mode & 0o777) for path in holding} == {("env", 0o600)}
    assert place.read(log_lines=5)["slots"]["blue"]["log"]["api"] == ["starting 1.0 in blue with ********"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("crash", "was restarted"),
        ("fleeting", "was restarted"),
        ("sick", "HTTP 503"),
    ],
)
def test_a_release_that_is_not_well_is_a_failure_with_its_last_lines(
    place: Place, built: dict[str, str], mode: str, said: str
) -> None:
    place.stage("1.0", environment={"MODE": mode}, secret={"TOKEN": "s3cret-of-the-api"})
    with pytest.raises(RunbookError) as caught:
        place.start("blue", "1.0", start_seconds=15.0 if mode != "sick" else 4.0)
    assert said in str(caught.value), caught.value
    log = caught.value.details["log"]["api"]
    assert "starting 1.0 in blue with ********" in log
    if mode == "crash":
        assert "no such table: users" in log
    assert docker("ps", "-aq", "--filter", f"name={place.container('blue')}"), "it is left to be looked at"
    assert place.stop("blue")["changed"]


def test_a_container_that_restarts_after_its_start_is_not_proven(place: Place, built: dict[str, str]) -> None:
    place.stage("1.0")
    place.start("blue", "1.0")
    place.prove("blue", "1.0")
    pid = docker("inspect", "--format", "{{.State.Pid}}", place.container("blue"))
    os.kill(int(pid), signal.SIGKILL)  # as the kernel does when memory ends; the engine starts it anew
    wait(
        lambda: docker("inspect", "--format", "{{.State.Status}} {{.RestartCount}}", place.container("blue")),
        "running 1",
    )
    assert "was restarted 1 times" in refusal(place.prove, "blue", "1.0")
    docker("kill", place.container("blue"))
    assert place.read()["slots"]["blue"]["running"] is False
    assert "its container ended (exit code 137)" in refusal(place.prove, "blue", "1.0")


def test_a_start_that_was_killed_is_finished_by_the_next(
    place: Place, built: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies in the middle of docker compose up; the command may live on, and holds the host's lock."""
    place.stage("1.0", environment={"MODE": "sick"})
    place.stage("1.1")
    place.start("green", "1.1")
    script = (
        "import json, sys\n"
        "from ansible_collections.signalbox.runbook.plugins.modules import compose_project\n"
        "compose_project.arrange(json.load(open(sys.argv[1])), False)\n"
    )
    arguments: dict[str, Any] = {}
    with monkeypatch.context() as patched:
        patched.setattr(compose_project, "arrange", lambda given, check: arguments.update(given) or {})
        place.start("blue", "1.0", live="green", start_seconds=60.0)
    path = tmp_path / "arguments.json"
    path.write_text(json.dumps(arguments), encoding="utf-8")
    command = [sys.executable, "-c", script, str(path)]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # PYTHONPATH leads to the collection
    wait(lambda: bool(docker("ps", "-aq", "--filter", f"name={place.container('blue')}")), True)
    worker.kill()
    worker.wait()
    place.stage("1.2", image=f"{PREFIX}-api:1.0")
    place.start("blue", "1.2", live="green", probes=[place.services("blue", "1.0")[0]["probes"][0]])
    assert docker("inspect", "--format", "{{.State.Status}}", place.container("blue")) == "running"
    assert place.answer("blue")["version"] == "1.0" and place.answer("green")["version"] == "1.1"
    labels = docker("inspect", "--format", "{{json .Config.Labels}}", place.container("blue"))
    assert json.loads(labels)["signalbox.runbook.release"] == "1.2-00000001"


def test_what_is_not_ours_is_not_touched(place: Place, built: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "foreign.yml"
    path.write_text(
        f"services:\n  api:\n    image: {PREFIX}-api:1.0\n    environment: {{PORT: 8080}}\n", encoding="utf-8"
    )
    docker("compose", "-p", f"{place.project}-blue", "-f", str(path), "up", "-d")
    place.stage("1.0")
    for refused in (refusal(place.start, "blue", "1.0"), refusal(place.stop, "blue")):
        assert "was not started for" in refused and "runtime_compose_project" in refused
    assert docker("inspect", "--format", "{{.State.Status}}", place.container("blue")) == "running"


def test_a_port_that_others_have_is_named_before_anything_starts(place: Place, built: dict[str, str]) -> None:
    place.stage("1.0")
    with socket.create_server(("127.0.0.1", place.ports["api"]["blue"])):
        assert f"port {place.ports['api']['blue']} of api is already in use" in refusal(place.start, "blue", "1.0")
        assert place.read()["slots"]["blue"]["busy"]
    assert docker("ps", "-aq", "--filter", f"name={place.container('blue')}") == ""
    place.start("blue", "1.0")


@pytest.mark.requirement("REL-10")
def test_a_stop_waits_for_the_requests_in_flight(place: Place, built: dict[str, str]) -> None:
    place.stage("1.0")
    place.start("blue", "1.0")
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(place.answer("blue", "/slow")["path"]))
    asking.start()
    pid = int(docker("inspect", "--format", "{{.State.Pid}}", place.container("blue")))
    wait(lambda: established([8080], Path(f"/proc/{pid}")) > 0, True)
    stopped = place.stop("blue", drain_seconds=20.0)
    asking.join()
    assert answers == ["/slow"] and stopped["connections_cut"] == 0
    place.start("blue", "1.0")
    with socket.create_connection(("127.0.0.1", place.ports["api"]["blue"])) as held:
        held.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert place.stop("blue", drain_seconds=0.0)["connections_cut"] == 1


@pytest.mark.requirement("DEP-03")
def test_services_start_in_order_each_healthy_before_the_next_and_stop_in_reverse(
    tmp_path: Path, built: dict[str, str]
) -> None:
    place = Place(tmp_path / "home", "order", ("first", "second"))
    base = "services:\n  first: {image: x, build: ., depends_on: [db]}\n  second: {image: x}\n  db: {image: nowhere}\n"
    over = "services:\n  first: {environment: {WHERE: production}}\n"
    try:
        place.stage("1.0", contents=[base, over])
        place.start("blue", "1.0")
        began = docker(
            "inspect", "--format", "{{.State.StartedAt}}", *(place.container("blue", s) for s in place.ports)
        )
        assert sorted(began.split()) == began.split()
        assert docker("ps", "-aq", "--filter", f"name={place.project}-blue-db") == "", "a data store is not a slot's"
        since = str(int(time.time()))
        place.stop("blue")
        words = ["--since", since, "--until", str(int(time.time()) + 1), "--filter", "event=die"]
        died = docker("events", *words, "--format", "{{.Actor.Attributes.name}}").split()
        ours = [name for name in died if name.startswith(place.project)]
        assert ours == [place.container("blue", "second"), place.container("blue", "first")]
        place.stage("1.1", contents=[base, over], environment={"MODE": "sick"})
        refusal(place.start, "blue", "1.1", start_seconds=3.0)
        assert docker("ps", "-aq", "--filter", f"name={place.container('blue', 'second')}") == ""
    finally:
        place.down()


def test_removed_releases_take_their_images_along_but_no_volume(place: Place) -> None:
    name = place.project
    ids = {version: build(version, f"{place.project[-4:]}p") for version in ("1", "2")}
    for version in ids:
        place.stage(version, image=f"{PREFIX}-{place.project[-4:]}p")
    docker("volume", "create", f"{name}-data")
    try:
        docker("image", "rm", f"{PREFIX}-{place.project[-4:]}p:1")  # by others: now only the release has it
        kept = "2-00000001"
        done = place.call("pruned", remove=["1-00000001"], keep=[kept])
        assert done["removed"] == ["1-00000001"] and done["images_removed"] == [f"runbook/{name}-api:1-00000001"]
        assert docker("image", "ls", "--quiet", "--no-trunc", "--all").count(ids["1"]) == 0
        assert [release["id"] for release in place.read()["releases"]] == [kept]
        assert place.call("pruned", remove=["1-00000001"], keep=[kept])["changed"] is False
        assert docker("image", "ls", "--quiet", f"{PREFIX}-{place.project[-4:]}p:2"), "the user's own tag stays"
        assert "to be kept" in refusal(place.call, "pruned", remove=[kept], keep=[kept])
        assert docker("volume", "ls", "--quiet", "--filter", f"name={name}-data") == f"{name}-data"
    finally:
        docker("volume", "rm", f"{name}-data")


BAD_FILES = {
    "services:\n  web: {image: x}\n": "api of app_services is no service of the compose files: they have web",
    "services:\n  api: {image: x, container_name: one}\n": "has a container_name",
    "services:\n  api: {image: x, network_mode: host}\n": "network_mode host",
    "services:\n  api: {image: x, deploy: {replicas: 3}}\n": "has 3 replicas",
    "services:\n  api: {image: x, volumes: ['data:/d']}\nvolumes: {data: {}}\n": "would get its own, empty one",
    "services:\n  api: {image: x, volumes: ['./conf:/c']}\n": "from beside the compose files",
    "services:\n  api: {image: x, environment: {MODE: y}}\n": "sets MODE under environment",
    "services:\n  api: {image: x, command: '${NOBODY}'}\n": "runtime_compose_variables does not set",
    "services:\n  api: [image\n": "does not accept the compose files",
    "services:\n  api: {imgae: x}\n": "does not accept the compose files",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_compose_files_that_can_not_stand_twice_are_refused(place: Place, built: dict[str, str], text: str) -> None:
    said = refusal(place.stage, "1.0", contents=[text], environment={"MODE": ""})
    assert BAD_FILES[text] in said
    assert str(place.home) not in said and "\n" not in said
    assert place.read()["releases"] == []


def test_files_of_the_release_are_what_runs_and_damage_is_seen(place: Place, built: dict[str, str]) -> None:
    over = "services:\n  api:\n    environment: {WORD: '${WORD}'}\n"
    place.stage("1.0", contents=["services:\n  api: {image: x}\n", over], variables={"WORD": "it's $5"})
    place.start("blue", "1.0")
    assert place.answer("blue")["env"]["WORD"] == "it's $5"
    changed = next((place.home / "releases").glob("*/compose/01-*"))
    changed.write_text(changed.read_text(encoding="utf-8").replace("WORD", "WARD"), encoding="utf-8")
    assert "was changed after it was made" in refusal(place.start, "green", "1.0")
    rebuilt = place.stage("1.0", contents=["services:\n  api: {image: x}\n", over], variables={"WORD": "it's $5"})
    assert rebuilt["outcome"] == "rebuilt"
    place.start("green", "1.0")


def test_check_mode_predicts_and_changes_nothing(place: Place, built: dict[str, str]) -> None:
    assert place.stage("1.0", check=True)["changed"] and not place.home.exists()
    place.stage("1.0")
    before = tree(place.home)
    assert place.start("blue", "1.0", check=True)["diff"]["after"]["release"] == "1.0-00000001"
    assert place.call("stopped", True, slot="blue")["changed"] is False
    assert place.call("pruned", True, remove=["1.0-00000001"])["removed"] == ["1.0-00000001"]
    assert tree(place.home) == before


def test_files_that_changed_since_the_plan_are_refused(place: Place) -> None:
    planned = {"id": "1.0-00000001", "version": "1.0", "digest": "of the files as they were"}
    service = {"name": "api", "image": "x", "container_port": 8080}
    files = {"files": ["compose.yml"], "contents": ["services: {}\n"]}
    text = refusal(place.call, "staged", release=planned, services=[service], **files)
    assert "not those that the plan was made of" in text
    assert place.read()["releases"] == []


def test_a_run_that_lost_its_lease_is_refused(place: Place, built: dict[str, str]) -> None:
    place.stage("1.0")
    place.fence = 0
    with pytest.raises(RunbookError) as caught:
        place.stage("1.0", fence=0)
    assert caught.value.details == {"fenced": True}


def test_what_is_wrong_with_the_host_is_one_sentence(place: Place, tmp_path: Path) -> None:
    socket_path = tmp_path / "no.sock"
    assert (
        "the Docker Engine does not answer"
        in place.read(command=["docker", "--host", f"unix://{socket_path}"])["problem"]
    )
    assert "is not on this host" in place.read(command=["no-such-docker"])["problem"]
    if os.geteuid() == 0:  # somebody who may not use the engine
        other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "docker"]
        assert "this user may not use the Docker Engine" in place.read(command=other)["problem"]
    without = tmp_path / "docker"
    real = shutil.which("docker")
    without.write_text(f'#!/bin/sh\n[ "$1" = compose ] && exec {real} kompose\nexec {real} "$@"\n', encoding="utf-8")
    without.chmod(0o755)
    assert "the Compose plugin is missing" in place.read(command=[str(without)])["problem"]


@pytest.mark.requirement("REL-05")
def test_a_registry_that_goes_away_in_the_middle(place: Place, tmp_path: Path) -> None:
    """Pulled by digest while it is there; later nothing needs it, until an image has to be had again."""
    if not shutil.which("docker-registry"):
        pytest.skip("there is no docker-registry here; as root, tests/lab/docker.sh installs it")
    with images.registry(tmp_path / "registry") as there:
        tag = f"{place.project[-4:]}r"
        first = build("1.0", tag)
        digest = there.push(f"{PREFIX}-{tag}:1.0", f"{PREFIX}/api:1.0")
        other = build("1.1", tag)
        there.push(f"{PREFIX}-{tag}:1.1", f"{PREFIX}/api:1.1")
        forget(first, other)
        assert place.stage("1.0", image=digest)["changed"]
        place.start("blue", "1.0")
        there.stop()
        assert "can't be pulled" in refusal(place.stage, "1.1", image=f"{there.address}/{PREFIX}/api")
        assert place.stage("1.0", image=digest)["outcome"] == "present"
        assert place.start("green", "1.0", live="blue")["changed"]
        place.down()
        for slot in ("blue", "green"):
            (place.home / "slots" / f"{slot}.json").unlink()
        forget(first)
        assert "can't be had again" in refusal(place.start, "blue", "1.0")
        there.start()
        place.start("blue", "1.0")
        assert place.answer("blue")["version"] == "1.0"
        place.stage("1.1", image=f"{there.address}/{PREFIX}/api")
        place.start("green", "1.1", live="blue")
        place.stop("blue", live="green")
        place.call("pruned", remove=["1.0-00000001"], keep=["1.1-00000001"])
        assert first not in docker("image", "ls", "--quiet", "--no-trunc", "--all")
        place.stop("green")
        place.call("pruned", remove=["1.1-00000001"])
        assert other not in docker("image", "ls", "--quiet", "--no-trunc", "--all"), (
            "what we pulled goes with its release"
        )


def forget(*ids: str) -> None:
    """All names of the images, as when somebody cleans up the engine."""
    for image in ids:
        for container in docker("ps", "-aq", "--filter", f"ancestor={image}").split():
            docker("rm", "-f", container)
        docker("image", "rm", "--force", image)


def wait(condition: Callable[[], Any], wanted: Any) -> None:
    deadline = time.monotonic() + 60
    while condition() != wanted:
        assert time.monotonic() < deadline, f"{condition()!r} instead of {wanted!r}"
        time.sleep(0.05)
