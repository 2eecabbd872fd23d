# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Docker Engine of this host through its command line, and its errors in our words.

Private: may change at any time.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _command
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

PROJECT = "com.docker.compose.project"
LABEL = "signalbox.runbook."
LEAST_COMPOSE = (2, 24, 4)  # the first with !override
COMPOSE_COMMAND = "runtime_compose_command"
# Whatever else is in our environment would stand for ${NAME} in the compose files, before what the model says.
KEPT = (
    "PATH",
    "HOME",
    "SSH_AUTH_SOCK",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
# What the command line takes from its environment for itself, before any container gets it.
CLIENT = re.compile(r"(PATH|HOME|(CONTAINERS?|DOCKER|LD|XDG)_.*)\Z")

# (argv, environment, timeout in seconds, file descriptors kept open) -> (exit code, standard output, standard error)
Run = Callable[[Sequence[str], Mapping[str, str], float, Sequence[int]], tuple[int, str, str]]


@dataclass(frozen=True)
class Container:
    """What ``docker inspect`` says of one container, as far as it matters here."""

    id: str
    service: str
    state: str  # created, running, paused, restarting, removing, exited, dead
    image: str = ""
    health: str = ""  # starting, healthy, unhealthy; empty where there is no health check
    pid: int = 0
    restarts: int = 0
    exit_code: int = 0
    started_at: str = ""
    error: str = ""
    killed_for_memory: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.state == "running" and self.health != "unhealthy"

    def trouble(self) -> str:
        """Why it does not run; empty when it does."""
        if self.running:
            return ""
        if self.state == "running":
            return "its health check says unhealthy"
        what = {"created": "was never started", "exited": "ended", "restarting": "ended and is being restarted"}
        told = what.get(self.state, f"is {self.state}")
        if self.state in ("exited", "restarting", "dead"):
            told += f" (exit code {self.exit_code}{', out of memory' if self.killed_for_memory else ''})"
        return f"its container {told}{': ' if self.error else ''}{self.error}"


class Image(NamedTuple):
    id: str
    digests: tuple[str, ...] = ()


def run_command(
    argv: Sequence[str],
    environment: Mapping[str, str],
    timeout: float,
    keep_open: Sequence[int] = (),
    setting: str = COMPOSE_COMMAND,
) -> tuple[int, str, str]:
    """Run one command, which ``setting`` names; after ``timeout`` seconds it ends with everything it started.

    It inherits ``keep_open``, the host's lock: a command that outlives its killed parent still holds it.
    """
    cure = "install the Docker Engine" + (" with the Compose plugin" if setting == COMPOSE_COMMAND else "")
    verb = next((word for word in argv[1:] if not word.startswith("-")), "")
    return _command.run(
        argv,
        timeout,
        lambda error: (
            f"the program {argv[0]} is not on this host: {cure}, or name the program in {setting}"
            if isinstance(error, FileNotFoundError)
            else f"cannot run {argv[0]}: {error.strerror}"
        ),
        f"{os.path.basename(argv[0])} {verb} did not end within {timeout:.0f} s and was stopped: look whether the "
        "Docker Engine hangs",
        cwd="/",
        env=environment,
        keep_open=keep_open,
    )


def listening(addresses: Sequence[str], setting: str = "runtime_compose_addresses") -> list[str]:
    """Where ports are published: on loopback, where the probes ask, and on the addresses that routers use."""
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise RunbookError(
                f"{address!r} is no IP address, so no port can be published there: set {setting}"
            ) from None
    if "0.0.0.0" in addresses:
        return ["0.0.0.0"]
    return list(dict.fromkeys(["127.0.0.1", *addresses]))


def connected(established: Callable[..., int], container: Container, inside: int, published: int) -> int:
    """How many connections to a container are open, seen from inside of it: right however its port is published."""
    try:
        return established([inside], Path("/proc") / str(container.pid))
    except (RunbookError, OSError):  # it ended, or its process may not be looked at
        return established([published]) if published else 0


def explain(error: str, setting: str = COMPOSE_COMMAND) -> str:
    """What the Docker command line said, as one sentence with the fix where it is known."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    text = " ".join(lines[-3:])
    text = re.sub(r"^(Error response from daemon|Error|ERROR):\s*", "", text)
    where = re.search(r"(unix|tcp|ssh|npipe)://[^\s:]+(:\d+)?", text)
    if "permission denied" in text and ("docker.sock" in text or "docker daemon socket" in text.lower()):
        sudo = f", or set {setting} to [sudo, docker]" if setting == COMPOSE_COMMAND else ""
        return f"this user may not use the Docker Engine: put it into the group docker, use become{sudo}"
    if "Cannot connect to the Docker daemon" in text or "error during connect" in text or "docker.sock" in text:
        at = f" at {where.group(0).rstrip('.')}" if where else ""
        return f"the Docker Engine does not answer{at}: start it (systemctl start docker)"
    if "no space left on device" in text:
        return f"the disk of the Docker Engine is full ({text}): remove what is not needed (docker system df)"
    if "compose" in text and ("is not a docker command" in text or "unknown command" in text or "unknown flag" in text):
        return "the Compose plugin is missing on this host: install Docker Compose 2.24.4 or newer"
    return text.rstrip(".") or "it said nothing"


class Docker:
    """One engine. Every call has a time limit; ``keep_open`` is inherited by all that is run."""

    def __init__(
        self,
        command: Sequence[str] = ("docker",),
        timeout_seconds: float = 30.0,
        run: Optional[Run] = None,
        keep_open: Sequence[int] = (),
        setting: str = COMPOSE_COMMAND,
    ) -> None:
        if not command:
            raise RunbookError(f"{setting} is empty: name the words that run docker, such as [docker]")
        self.command = list(command)
        self.timeout_seconds = timeout_seconds
        self.run = run or functools.partial(run_command, setting=setting)
        self.keep_open = tuple(keep_open)
        self.setting = setting

    def attempt(self, *args: str, seconds: Optional[float] = None) -> tuple[int, str, str]:
        environment = {key: value for key, value in os.environ.items() if key in KEPT or key.startswith("DOCKER_")}
        environment["LC_ALL"] = "C.UTF-8"
        limit = self.timeout_seconds if seconds is None else seconds
        return self.run([*self.command, *args], environment, limit, self.keep_open)

    def call(self, *args: str, seconds: Optional[float] = None) -> str:
        code, out, err = self.attempt(*args, seconds=seconds)
        if code != 0:
            raise RunbookError(self.explain(err or out))
        return out

    def explain(self, error: str) -> str:
        return explain(error, self.setting)

    def problem(self) -> str:
        """Why neither the engine nor Compose can be used; empty when both can."""
        try:
            self.call("version", "--format", "{{.Server.Version}}")
            code, out, _err = self.attempt("compose", "version", "--short")
        except RunbookError as error:
            return str(error)
        found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", out.strip())
        if code != 0 or not found:
            return "the Compose plugin is missing on this host: install Docker Compose 2.24.4 or newer"
        if tuple(map(int, found.groups())) < LEAST_COMPOSE:
            return f"Docker Compose {out.strip()} is too old: 2.24.4 or newer is needed"
        return ""

    # -- containers -----------------------------------------------------------------------------------------------

    def containers(self, *labels: str) -> list[Container]:
        """Every container with all of the labels, running or not."""
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self.inspect(self.call("ps", "--all", "--quiet", "--no-trunc", *filters).split())

    def inspect(self, ids: Sequence[str]) -> list[Container]:
        """The containers that still are there, in the order of ``ids``."""
        if not ids:
            return []
        code, out, err = self.attempt("container", "inspect", *ids)
        if code != 0 and "no such container" not in err.lower():
            raise RunbookError(self.explain(err))
        return parse_containers(out)

    def logs(self, container: str, lines: int) -> list[str]:
        """The last lines of its output; empty where its log can't be read, which is no failure of its own."""
        code, out, err = self.attempt("logs", "--tail", str(lines), container)
        return [line for line in (out + err).splitlines() if line.strip()][-lines:] if code == 0 and lines > 0 else []

    def stop(self, container: str, seconds: float) -> None:
        limit = max(int(-(-seconds // 1)), 0)
        code, out, err = self.attempt("stop", "--time", str(limit), container, seconds=limit + self.timeout_seconds)
        if code != 0 and "no such container" not in err.lower():
            raise RunbookError(f"container {container[:12]} cannot be stopped: {self.explain(err or out)}")

    def remove(self, container: str) -> None:
        """End it at once, and forget it, with the volumes that are its own."""
        code, out, err = self.attempt("rm", "--force", "--volumes", container)
        if code != 0 and not re.search("no such container|already in progress", err, re.IGNORECASE):
            raise RunbookError(f"container {container} cannot be removed: {self.explain(err or out)}")

    # -- images ---------------------------------------------------------------------------------------------------

    def image(self, reference: str) -> Optional[Image]:
        """The image of that name, digest or id, if this host has it."""
        code, out, err = self.attempt("image", "inspect", reference)
        if code != 0:
            if re.search("no such image|image not known", err, re.IGNORECASE):
                return None
            raise RunbookError(self.explain(err))
        (found,) = json.loads(out)
        return Image(str(found["Id"]), tuple(found.get("RepoDigests") or ()))

    def untag(self, reference: str) -> bool:
        """Take a name from an image; the image goes with its last name, unless a container is made of it."""
        code, out, err = self.attempt("image", "rm", reference)
        if code != 0 and not re.search("no such image|conflict|is using its|is being used", err, re.IGNORECASE):
            raise RunbookError(f"image {reference} cannot be removed: {self.explain(err or out)}")
        return code == 0


def parse_containers(text: str) -> list[Container]:
    """The answer of ``docker container inspect``."""
    try:
        return [_container(raw) for raw in json.loads(text or "[]")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunbookError(f"docker container inspect gave an answer that is not understood: {error!r}") from None


def _container(raw: Mapping[str, Any]) -> Container:
    state, labels = raw["State"], raw["Config"].get("Labels") or {}
    return Container(
        id=str(raw["Id"]),
        service=str(labels.get("com.docker.compose.service") or ""),
        state=str(state["Status"]),
        image=str(raw.get("Image") or ""),
        health=str((state.get("Health") or {}).get("Status") or "").replace("none", ""),
        pid=int(state.get("Pid") or 0),
        restarts=int(raw.get("RestartCount") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        started_at=str(state.get("StartedAt") or ""),
        error=str(state.get("Error") or ""),
        killed_for_memory=bool(state.get("OOMKilled")),
        labels=dict(labels),
    )


def services(containers: Iterable[Container]) -> dict[str, Container]:
    """The container of each service, without those of one-off commands."""
    return {one.service: one for one in containers if one.labels.get("com.docker.compose.oneoff") != "True"}
