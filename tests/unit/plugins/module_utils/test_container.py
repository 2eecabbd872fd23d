# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is written for containers. What Docker makes of it is tested on a real engine, in tests/compose."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _container, _release
from ansible_collections.signalbox.runbook.plugins.module_utils._container import Contained, Containers
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

ONE = Contained("shop-api-blue", "sha256:" + "5f" * 32, 8080, ("127.0.0.1", "fd00::7"))
# Says how it was called; the real one is asked in tests/compose.
CALLED = """#!/bin/sh
test "$1" = rm && { echo "rm $4" >> "$OUT"; exit 1; }
printf '%s\\n' "$@" >> "$OUT"
env -0 > "$OUT.env"
"""


def spec(**more):
    api = {"name": "api", "image": "shop/api", "container_port": 8080, "secrets": {"TOKEN": "a\n'b'"}, **more}
    return {"id": "1.0-aaaa", "version": "1.0", "services": [api], "container_prefix": "shop"}


def test_values_reach_the_command_line_by_its_environment_only(tmp_path):
    program = tmp_path / "engine"
    program.write_text(CALLED)
    program.chmod(0o755)
    release = _release.parse(spec(environment={"OUT": str(tmp_path / "out"), "name": "x", "words": "y"}))
    directory = tmp_path / "api"
    directory.mkdir()
    (directory / "env").write_text(_release.environment_file(release.services[0].environment))
    script = _release.container_script(release, release.services[0], directory, "sha256:ab", [str(program)])
    (directory / "run").write_text(script)
    given = {"PORT": "18001", "SLOT": "blue", "PATH": os.environ["PATH"]}
    subprocess.run(["/bin/sh", directory / "run", "shop-api-blue", "--label=a=b c"], env=given, check=True, timeout=30)
    words = (tmp_path / "out").read_text().splitlines()
    assert words[:2] == ["rm shop-api-blue", "run"] and words[-2:] == ["--label=a=b c", "sha256:ab"]
    assert {words[n + 1] for n, word in enumerate(words) if word == "--env"} == {
        *("TOKEN", "OUT", "name", "words"),
        *_release.RESERVED,
    }
    environment = dict(one.split("=", 1) for one in (tmp_path / "out.env").read_text().split("\0") if one)
    assert environment["name"] == "x" and words[words.index("--name") + 1] == "shop-api-blue"
    assert environment["TOKEN"] == "a\n'b'" and environment["PORT"] == "8080" and environment["SLOT"] == "blue"


def test_what_differs_between_slots_is_given_to_the_script():
    containers = Containers("/srv/shop", "shop")
    assert containers.arguments(ONE, 18001, 2.5, {"slot": "blue"}) == [
        "shop-api-blue",
        "--stop-timeout=3",
        "--publish=127.0.0.1:18001:8080",
        "--publish=[fd00::7]:18001:8080",
        "--label=signalbox.runbook.home=/srv/shop",
        "--label=signalbox.runbook.slot=blue",
    ]


def test_a_container_reads_back():
    assert _container.contained(json.loads(json.dumps(ONE._asdict()))) == ONE
    assert _container.contained(None) is None


def test_only_services_with_an_image_are_containers():
    manifest = {"services": {"api": {"image_id": ONE.image, "container_port": 8080}, "web": {"command": "serve"}}}
    containers = Containers("/srv/shop", "shop", addresses=["fd00::7"])
    assert containers.of(manifest, "blue") == {"api": ONE}
    assert containers.of(None, "blue") == {}
    with pytest.raises(RunbookError, match="runtime_host_container_addresses"):
        Containers("/srv/shop", "shop", addresses=["web1"]).of(manifest, "blue")
    assert Containers("/srv/shop", "shop", addresses=["web1"]).of({"services": {}}, "blue") == {}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"image": "Shop/api"}, r"services\[0\].image .* is no image reference"),
        ({"command": "serve"}, r"services\[0\].command is not for a service with an image"),
        ({"artifact": {"git": "x"}}, r"services\[0\].artifact is not for a service with an image"),
        ({"container_port": 0}, r"services\[0\].container_port must be the port in the container"),
        ({"environment": {"LD_PRELOAD": "x"}}, "the variable LD_PRELOAD would change what runs the container"),
        ({"secrets": {"PORT": "1"}}, r"services\[0\].secrets.PORT is set for every process"),
    ],
)
def test_what_no_container_can_be_made_of(more, said):
    with pytest.raises(RunbookError, match=said):
        _release.parse(spec(**more))


def test_the_names_of_images_need_a_beginning():
    assert _release.parse(spec()).services[0].image == "shop/api:1.0"
    with pytest.raises(RunbookError, match="container_prefix must be"):
        _release.parse({**spec(), "container_prefix": "Shop"})


def test_sudo_would_keep_the_environment_from_the_container():
    with pytest.raises(RunbookError, match="runtime_host_container_command begins with /usr/bin/sudo"):
        _container.engine(["/usr/bin/sudo", "docker"])
    with pytest.raises(RunbookError, match="runtime_host_container_command is empty"):
        _container.engine([])
