# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services that are containers, each run in the foreground by the process manager of the host.

The manager runs the command line (``docker run``), and that the container. A command line that is killed leaves its
container behind, so containers are asked for by their names. Private: may change at any time.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils._docker import (
    LABEL,
    Container,
    Docker,
    connected,
    listening,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._images import fetch_again, parts

SETTING = "runtime_host_container_command"
COMMAND_OPTION: dict[str, Any] = {"type": "list", "elements": "str", "default": ["docker"]}
CONTAINER_OPTIONS: dict[str, Any] = {
    "container_command": COMMAND_OPTION,
    "container_prefix": {"type": "str", "default": ""},
}
PREFIX = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
POLL_SECONDS = 0.2


def engine(command: Sequence[str] = ("docker",), keep_open: Sequence[int] = ()) -> Docker:
    if command and os.path.basename(command[0]) in ("sudo", "doas"):
        raise RunbookError(
            f"{SETTING} begins with {command[0]}, which would keep the environment from the containers: put the user "
            "of the process manager into the group docker, or use become"
        )
    return Docker(command, keep_open=keep_open, setting=SETTING)


def script(command: Sequence[str], names: Sequence[str], image_id: str) -> list[str]:
    """The last lines of the script that runs a container: in the foreground, and with no value in an argument.

    It is called with the name first. No variable of its own could be one of the service.
    """
    words = shlex.join(command)
    passed = " ".join(f"--env {name}" for name in sorted(names))
    return [
        "# What a command line that was killed left behind has the name and the port.",
        f'{words} rm --force --volumes "$1" >/dev/null 2>&1 || :',
        # Output goes to the process manager; a second copy would grow, with what it tells, beside it.
        f'exec {words} run --rm --pull never --log-driver none {passed} --name "$@" {image_id}',
    ]


class Contained(NamedTuple):
    """The container of a service in a slot: its name, its image, the port inside, and where that is published."""

    name: str
    image: str
    port: int
    addresses: tuple[str, ...]


def contained(raw: Optional[Mapping[str, Any]]) -> Optional[Contained]:
    """What ``Contained._asdict`` wrote."""
    return Contained(raw["name"], raw["image"], raw["port"], tuple(raw["addresses"])) if raw else None


class Containers:
    """The containers of the slots of one home."""

    def __init__(
        self,
        home: str,
        prefix: str,
        docker: Optional[Docker] = None,
        addresses: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.home = home
        self.prefix = prefix
        self.docker = docker or engine()
        self.addresses = addresses
        self.clock = clock
        self.sleep = sleep

    def of(self, manifest: Optional[Mapping[str, Any]], slot: str) -> dict[str, Contained]:
        """By service what a release runs in a slot."""
        found = parts(manifest)
        where = tuple(listening(self.addresses, "runtime_host_container_addresses")) if found else ()
        return {
            name: Contained(f"{self.prefix}-{name}-{slot}", part["image_id"], part["container_port"], where)
            for name, part in found.items()
        }

    def units(self) -> list[str]:
        """What is to run before containers do."""
        return [os.path.basename(self.docker.command[0])]

    def arguments(self, one: Contained, port: int, stop_seconds: float, labels: Mapping[str, str]) -> list[str]:
        """What the script of a release is called with in a slot."""
        words = [one.name, f"--stop-timeout={math.ceil(stop_seconds)}"]
        for address in one.addresses:
            words.append(f"--publish={f'[{address}]' if ':' in address else address}:{port}:{one.port}")
        return [*words, *(f"--label={LABEL}{key}={value}" for key, value in {"home": self.home, **labels}.items())]

    def seen(self, one: Optional[Contained]) -> Optional[Container]:
        """The container, running or not; one of somebody else with that name is refused."""
        if one is None:
            return None
        found = next(iter(self.docker.inspect([one.name])), None)
        if found and found.labels.get(f"{LABEL}home") != self.home:
            raise RunbookError(
                f"there is a container {one.name} that was not started for {self.home}, so it is not touched: choose "
                "another runtime_host_container_prefix"
            )
        return found

    def require(self, one: Contained, part: Mapping[str, Any], seconds: float) -> None:
        """The name is free or ours, and the image is here."""
        self.seen(one)
        if self.docker.image(one.image) is None:
            fetch_again(self.docker, part, seconds)

    def problem(self, one: Optional[Contained], alive: bool = True) -> str:
        """Why what runs is not the container of the release; ``alive`` is whether the process manager runs it."""
        if one is None:
            return ""
        found = self.seen(one)
        if not alive:
            return f"the container {one.name} is there, but what started it has ended" if found else ""
        if found is None:
            return f"there is no container {one.name}"
        if found.image != one.image:
            return f"the container {one.name} is of the image {found.image[:19]}, not {one.image[:19]}"
        return "" if found.state == "running" else found.trouble()  # whether it is healthy, our probes say

    def connections(self, found: Optional[Container], one: Any, established: Callable[..., int]) -> int:
        if found is None or not found.pid:
            return established([one.port])
        return connected(established, found, one.container.port, one.port)

    def remove(self, one: Optional[Contained], grace_seconds: float) -> None:
        """End what is left of it: nothing, where it ended with its command line."""
        found = self.seen(one)
        if one is None or found is None:
            return
        if found.pid and grace_seconds:
            self.docker.stop(found.id, grace_seconds)
        deadline = self.clock() + self.docker.timeout_seconds
        while self.seen(one) is not None:
            self.docker.remove(found.id)
            if self.clock() >= deadline:
                raise RunbookError(
                    f"the container {one.name} was removed, but is still there: look at the Docker Engine"
                )
            self.sleep(POLL_SECONDS)
