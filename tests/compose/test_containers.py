"""Services of the runtime host that are containers: releases and slots under a real supervisord and Docker Engine.

What a whole deployment does with them is in tests/conformance.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.signalbox.runbook.plugins.module_utils import _container, _release
from ansible_collections.signalbox.runbook.plugins.module_utils._connections import established
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._supervisor import Supervisor
from ansible_collections.signalbox.runbook.plugins.modules import release_prune, slot, target_info
from compose_site import ContainerSite, make_site
from conftest import build, free_ports, images, refusal
from engine import PREFIX, docker

from runbook_site import version_at

SECRET = "f00d-4a7e\nof two lines"
CONF = """\
[unix_http_server]
file={0}/s.sock
[supervisord]
logfile={0}/supervisord.log
pidfile={0}/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[include]
files={0}/conf.d/*.conf
"""


def options(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: one.get("default") for key, one in spec.items()}


class Host:
    """A target with a supervisord of its own: one service that is a container, and one that is not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.prefix = f"{PREFIX}-{directory.name[-8:]}".lower().replace("_", "-")
        self.fence = 0
        numbers = free_ports(4)
        self.ports = {"api": dict(zip(("blue", "green"), numbers)), "web": dict(zip(("blue", "green"), numbers[2:]))}
        (directory / "conf.d").mkdir()
        (directory / "supervisord.conf").write_text(CONF.format(directory), encoding="utf-8")
        self.supervisor = Supervisor(str(directory / "s.sock"))
        self.process: subprocess.Popen[bytes]
        self.start_supervisord()

    def start_supervisord(self) -> None:
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self.directory / "supervisord.conf")]
        with (self.directory / "out").open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        until(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.supervisor.version())
        except RunbookError:
            return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    # -- what the role does ---------------------------------------------------------------------------------------

    def common(self, spec: dict[str, Any], **given: Any) -> dict[str, Any]:
        return {
            **options(spec),
            "home": str(self.home),
            "application": "shop",
            "supervisor_socket": str(self.directory / "s.sock"),
            "supervisor_conf_dir": str(self.directory / "conf.d"),
            "container_prefix": self.prefix,
            **given,
        }

    def stage(self, version: str, image: str = "", command: tuple[str, ...] = ("docker",)) -> dict[str, Any]:
        api = {
            "name": "api",
            "image": image or f"{PREFIX}-api",
            "container_port": 8080,
            "environment": {"GREETING": "it's $HOME"},
            "secrets": {"TOKEN": SECRET},
        }
        archive, digest = images.app.build(version, {}, self.directory / "artifacts", images.app.PLAIN)
        web = {
            "name": "web",
            "artifact": {"archive": str(archive), "sha256": digest},
            "command": f'{sys.executable} -S server.py --port "$PORT"',
        }
        spec = {"id": f"{version}-0001", "version": version, "services": [api, web], "container_prefix": self.prefix}
        self.fence += 1
        with _release.changing(self.home, self.fence):
            return _release.stage(spec, self.home, docker=_container.engine(command))

    def services(self, name: str) -> list[dict[str, Any]]:
        url = "http://127.0.0.1:{port}/health"
        return [
            {
                **options(slot.SERVICE_OPTIONS),
                "name": service,
                "port": ports[name],
                "start_seconds": 20.0,
                "stop_seconds": 3.0,
                "probes": [{"name": f"{service} health", "url": url, "expect": {"status": "ok"}}],
            }
            for service, ports in self.ports.items()
        ]

    def slot(self, name: str, state: str, version: str = "", **more: Any) -> dict[str, Any]:
        self.fence += 1
        release = {"id": f"{version}-0001", "version": version} if version else None
        given = {"fence": self.fence, "slot": name, "state": state, "release": release, **more}
        return slot.arrange(self.common(slot.ARGUMENTS, **given, services=self.services(name)), False)

    def look(self) -> dict[str, Any]:
        services = [
            {"name": name, "exclusive": False, "ports": ports, "probes": self.services("blue")[0]["probes"]}
            for name, ports in self.ports.items()
        ]
        return target_info.tell(self.common(target_info.ARGUMENTS, services=services))

    def prune(self, *going: str) -> dict[str, Any]:
        self.fence += 1
        given = {"fence": self.fence, "remove": [f"{version}-0001" for version in going]}
        return release_prune.answer(self.common(release_prune.ARGUMENTS, **given), False)

    # -- what is really there -------------------------------------------------------------------------------------

    def name(self, slot: str) -> str:
        return f"{self.prefix}-api-{slot}"

    def client(self, slot: str, service: str = "api") -> int:
        return int((self.supervisor.info(f"shop-{service}-{slot}") or {"pid": 0})["pid"])

    def containers(self) -> list[str]:
        return sorted(docker("ps", "--all", "--filter", f"name={self.prefix}", "--format", "{{.Names}}").split())

    def inspected(self, slot: str) -> dict[str, Any]:
        (found,) = json.loads(docker("container", "inspect", self.name(slot)))
        return dict(found)

    def asked(self, slot: str, path: str = "/") -> Any:
        return urllib.request.urlopen(f"http://127.0.0.1:{self.ports['api'][slot]}{path}", timeout=10)

    def said(self, slot: str) -> dict[str, Any]:
        with self.asked(slot) as answer:
            return dict(json.load(answer))


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def built(cleaned: None) -> dict[str, str]:
    """Anew, because the tests of Compose have images forgotten by all their names."""
    return {version: build(version) for version in ("1.0", "1.1")}


@pytest.fixture
def host(tmp_path: Path, built: dict[str, str]) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def test_a_container_and_a_process_are_one_release(host: Host, built: dict[str, str]) -> None:
    staged = host.stage("1.0")
    assert staged["outcome"] == "made" and host.stage("1.0")["outcome"] == "present"
    manifest = json.loads((Path(staged["path"]) / "manifest.json").read_text(encoding="utf-8"))
    api = manifest["services"]["api"]
    assert (api["reference"], api["image_id"]) == (f"{PREFIX}-api:1.0", built["1.0"])
    assert host.slot("blue", "started", "1.0")["changed"]
    assert host.slot("blue", "started", "1.0")["changed"] is False
    host.slot("blue", "proven", "1.0")
    said = host.said("blue")
    expected = {"PORT": "8080", "SLOT": "blue", "RELEASE": "1.0-0001", "DEPLOYED_VERSION": "1.0", "TOKEN": SECRET}
    assert {key: said["env"].get(key) for key in expected} == expected
    assert said["env"]["GREETING"] == "it's $HOME" and said["env"]["DEPLOYED_AT"]
    host.stage("1.1")
    host.slot("green", "started", "1.1", live_slot="blue")
    assert (host.said("blue")["version"], host.said("green")["version"]) == ("1.0", "1.1")
    look = host.look()
    assert look["manager"]["ok"] and [one["healthy"] for one in look["slots"].values()] == [True, True]
    assert host.slot("blue", "stopped", live_slot="green")["changed"]
    assert host.slot("blue", "stopped", live_slot="green")["changed"] is False
    assert host.containers() == [host.name("green")]


def test_a_secret_is_in_no_argument_and_in_no_log_of_docker(host: Host, built: dict[str, str]) -> None:
    host.stage("1.0")
    host.slot("blue", "started", "1.0")
    command = Path(f"/proc/{host.client('blue')}/cmdline").read_bytes()
    assert b"run" in command.split(b"\0") and b"f00d" not in command
    assert host.inspected("blue")["HostConfig"]["LogConfig"]["Type"] == "none"
    conf = (host.directory / "conf.d" / "shop-api-blue.conf").read_text(encoding="utf-8")
    run = (host.home / "releases" / "1.0-0001" / "api" / "run").read_text(encoding="utf-8")
    assert "f00d" not in conf + run
    assert (host.home / "releases" / "1.0-0001" / "api" / "env").stat().st_mode & 0o777 == 0o600
    stopped = host.slot("blue", "stopped")
    assert any(line.startswith("starting 1.0 in blue") for line in stopped["log"]["api"])
    assert "f00d" not in json.dumps(stopped)


@pytest.mark.requirement("REL-10")
def test_sigterm_gets_through_and_the_container_ends_by_itself(host: Host, built: dict[str, str]) -> None:
    host.stage("1.0")
    host.slot("blue", "started", "1.0")
    assert host.inspected("blue")["Config"]["StopTimeout"] == 3
    with subprocess.Popen(
        ["docker", "events", "--filter", f"container={host.name('blue')}", "--format", "{{.Action}} {{json .Actor}}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as events:
        host.slot("blue", "stopped")
        until(lambda: not host.containers())
        time.sleep(0.5)
        events.terminate()
        seen = events.communicate()[0]
    assert '"signal":"15"' in seen and '"signal":"9"' not in seen and '"exitCode":"0"' in seen


@pytest.mark.requirement("REL-10")
def test_a_request_that_is_under_way_is_answered_before_the_container_ends(host: Host, built: dict[str, str]) -> None:
    host.stage("1.0")
    host.slot("blue", "started", "1.0")
    answers: list[int] = []
    asked = threading.Thread(target=lambda: answers.append(host.asked("blue", "/slow").status))
    asked.start()
    inside = Path("/proc") / str(host.inspected("blue")["State"]["Pid"])
    until(lambda: established([8080], inside))
    assert host.slot("blue", "stopped")["connections_cut"] == 0
    asked.join(30)
    assert answers == [200]


def test_a_command_line_that_is_killed_leaves_no_stray(host: Host, built: dict[str, str]) -> None:
    host.stage("1.0")
    host.slot("blue", "started", "1.0")
    first, before = host.client("blue"), host.inspected("blue")["Id"]
    os.kill(first, signal.SIGKILL)  # supervisord starts it again: the container that stayed has the name and the port
    until(lambda: host.client("blue") not in (0, first))
    until(lambda: host.containers() and host.inspected("blue")["Id"] != before)
    until(lambda: host.look()["slots"]["blue"]["healthy"])
    # Now the process manager does not know of it either.
    pids = [host.client("blue"), host.client("blue", "web")]
    host.process.send_signal(signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    host.process.kill()
    host.process.wait()
    for conf in (host.directory / "conf.d").iterdir():
        conf.rename(host.directory / conf.name)
    host.start_supervisord()
    for conf in host.directory.glob("shop-*.conf"):
        conf.rename(host.directory / "conf.d" / conf.name)
    seen = host.look()["slots"]["blue"]
    assert host.said("blue")["version"] == "1.0", "the container runs on"
    assert seen["running"] is False and seen["healthy"] is False
    assert ["what started it has ended" in answer["problem"] for answer in seen["answers"]] == [True]
    host.slot("blue", "started", "1.0")
    assert len(host.containers()) == 1 and host.look()["slots"]["blue"]["healthy"]
    assert host.slot("blue", "stopped")["changed"]
    assert host.containers() == []


def test_a_moved_tag_changes_nothing_and_another_container_is_named(host: Host, built: dict[str, str]) -> None:
    build("7.0")
    host.stage("7.0")
    host.slot("blue", "started", "7.0")
    build("7.0", built="8.0")
    assert host.stage("7.0")["outcome"] == "present"
    host.slot("blue", "stopped")
    host.slot("blue", "started", "7.0")
    assert host.said("blue")["version"] == "7.0"
    path = host.home / "slots" / "blue.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["services"][0]["container"]["image"] = built["1.0"]
    path.write_text(json.dumps(record), encoding="utf-8")
    seen = host.look()["slots"]["blue"]
    assert seen["running"] and not seen["healthy"]
    assert f"not {built['1.0'][:19]}" in " ".join(answer["problem"] for answer in seen["answers"])
    assert "is of the image" in refusal(host.slot, "blue", "proven", "7.0")


def test_images_go_with_the_releases_that_had_them(host: Host, built: dict[str, str]) -> None:
    for version in ("1.0", "1.1"):
        host.stage(version)
    kept = f"runbook/{host.prefix}-api:1.0-0001"
    assert docker("image", "inspect", "--format", "{{.Id}}", kept) == built["1.0"]
    with images.registry(host.directory / "registry") as registry:
        for tag in ("1.2", "1.3"):
            reference = f"{registry.address}/{PREFIX}-shop:{tag}"
            registry.push(built["1.0"], f"{PREFIX}-shop:{tag}")
            docker("image", "rm", reference)
            host.stage(tag, f"{registry.address}/{PREFIX}-shop")
        docker("image", "rm", reference, f"runbook/{host.prefix}-api:1.3-0001")
        gone = host.prune("1.0", "1.2")
    assert gone["changed"] and not gone.get("failed"), gone
    assert gone["images_removed"] == [kept, f"runbook/{host.prefix}-api:1.2-0001", reference.replace(":1.3", ":1.2")]
    assert docker("image", "inspect", "--format", "{{.Id}}", f"{PREFIX}-api:1.0") == built["1.0"], "it was not pulled"


def test_what_is_missing_is_one_sentence_and_leaves_nothing(host: Host, built: dict[str, str]) -> None:
    for arguments, said in (
        (("9.9",), f"the image {PREFIX}-api:9.9 of api can't be pulled: "),
        (("1.0", "127.0.0.1:9/shop"), "the image 127.0.0.1:9/shop:1.0 of api can't be pulled: "),
        (("1.0", "", ("no-docker",)), "the program no-docker is not on this host: install the Docker Engine, or name "),
        (("1.0", "", ("sudo", "docker")), "runtime_host_container_command begins with sudo"),
        (("1.0", "", ("docker", "--host", "unix:///none.sock")), "the Docker Engine does not answer"),
    ):
        assert said in refusal(host.stage, *arguments)
        assert not (host.home / "releases").exists() or list((host.home / "releases").iterdir()) == []
    assert host.containers() == []


def test_a_container_of_somebody_else_is_not_touched(host: Host, built: dict[str, str]) -> None:
    host.stage("1.0")
    docker("run", "--detach", "--name", host.name("blue"), "--env", "PORT=1", built["1.0"])
    assert "another runtime_host_container_prefix" in refusal(host.slot, "blue", "started", "1.0")
    assert host.inspected("blue")["State"]["Running"]
    docker("rm", "--force", host.name("blue"))


def test_a_port_that_is_taken_is_named(host: Host, built: dict[str, str]) -> None:
    host.stage("1.0")
    docker(
        "run",
        "--detach",
        "--name",
        f"{host.prefix}-x",
        "--publish",
        f"127.0.0.1:{host.ports['api']['blue']}:1",
        built["1.0"],
    )
    assert "docker-proxy" in refusal(host.slot, "blue", "started", "1.0")
    assert host.containers() == [f"{host.prefix}-x"]


@pytest.fixture
def site(tmp_path: Path, cleaned: None) -> Iterator[ContainerSite]:
    """A target with a container and, as its second service, a process out of an archive."""
    for made in make_site(tmp_path, "mixed", 1, kind=ContainerSite):
        path = made.inventory / "group_vars" / "all.yml"
        model = yaml.safe_load(path.read_text(encoding="utf-8"))
        container = model["app_services"][0]
        archive = f"{made.artifacts}/demo-{{{{ app_version }}}}.tar.gz"
        web = {
            **{key: container[key] for key in ("health", "version")},
            "name": "web",
            "ports": dict(zip(("blue", "green"), free_ports(2))),
            "artifact": {"archive": archive, "sha256": "{{ lookup('file', web_archive ~ '.sha256') | split | first }}"},
            "command": f'{sys.executable} -S server.py --port "$PORT"',
            "depends_on": ["backend"],
            "routed": False,
        }
        model["web_archive"] = archive
        model["app_services"].append({**web, "port": web["ports"]["blue"]})
        path.write_text(yaml.safe_dump(model, width=1000), encoding="utf-8")
        yield made


@pytest.mark.requirement("REL-07")
def test_one_application_mixes_containers_and_archives(site: ContainerSite) -> None:
    web = yaml.safe_load((site.inventory / "group_vars" / "all.yml").read_text(encoding="utf-8"))["app_services"][1]
    for version in ("1.0.0", "1.1.0"):
        site.release(version)
        images.app.build(version, {}, site.artifacts, images.app.PLAIN)
        done = site.deploy(version)
        assert done.code == 0, done.output
    recorded = site.history()[-1]["artifacts"]
    assert recorded["backend"] == {"image": site.image} and len(recorded["web"]["sha256"]) == 64
    back = site.rollback()
    assert back.code == 0 and site.answers() == {"1.0.0"}, back.output
    assert [version_at(f"http://127.0.0.1:{web['ports'][slot]}") for slot in ("blue", "green")] == ["1.0.0", "1.1.0"]
    assert site.slots() == {"target1": {"blue": "1.0.0", "green": "1.1.0"}} and site.strays() == []
