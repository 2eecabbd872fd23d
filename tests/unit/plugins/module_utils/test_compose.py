# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules. What Docker makes of them is tested on a real engine, in tests/compose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _compose, _docker, _images
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import Docker
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import Service

DIGEST = "@sha256:" + "5f" * 32


@pytest.mark.parametrize(
    ("image", "completed"),
    [
        ("shop/api", "shop/api:1.3.0"),
        ("localhost:5000/shop/api", "localhost:5000/shop/api:1.3.0"),
        ("shop/api:2", "shop/api:2"),
        ("localhost:5000/shop/api:2", "localhost:5000/shop/api:2"),
        (f"shop/api{DIGEST}", f"shop/api{DIGEST}"),
        (f"shop/api:2{DIGEST}", f"shop/api:2{DIGEST}"),
    ],
)
def test_the_version_is_the_tag_of_an_image_that_has_none(image, completed):
    assert _images.reference(image, "1.3.0") == completed


@pytest.mark.parametrize(
    "image", ["", None, "--privileged", "Shop/api", "shop api", "shop/api@sha256:12", "x;y", "a\nb"]
)
def test_what_is_no_image_is_named(image):
    with pytest.raises(RunbookError, match=r"app_services\[1\]\.image .* is no image reference"):
        _images.reference(image, "1.3.0", "app_services[1].image")


def test_a_version_that_can_not_be_a_tag():
    assert _images.reference("a:1", "1+build") == "a:1"
    with pytest.raises(RunbookError, match="give the tag"):
        _images.reference("a", "1+build")


@pytest.mark.parametrize(
    "value", ["", "a b", "'", '"', "\\", "\\n", "a\nb", "\r\n", "$x", "${x}", "#", "=", "ü", '\\\\"']
)
def test_an_environment_file_reads_back(value):
    written = _compose.environment_file({"A": value, "B": "x"})
    assert _compose.read_environment(written) == {"A": value, "B": "x"}
    assert written.count("\n") == 2


def test_what_no_environment_can_hold():
    with pytest.raises(RunbookError, match=r"environment\.A has a NUL"):
        _compose.environment_file({"A": "\0"})


def manifest(**services):
    made = {"image_id": "sha256:1", "container_port": 8080, "restart": True}
    return {"id": "1.3.0-ab", "version": "1.3.0", "services": {name: {**made, **own} for name, own in services.items()}}


def plain(text):
    return json.loads(text.replace("!override ", ""))["services"]


def test_the_overlay_says_what_a_slot_needs_and_no_secret():
    text = _compose.overlay(
        manifest(api={}, web={"restart": False}),
        Path("/srv/sh$p/releases/1.3.0-ab"),
        [Service("api", 8001), Service("web", 8002)],
        ["127.0.0.1", "10.0.0.5"],
        "blue",
        {"signalbox.runbook.slot": "blue"},
        "2026-01-01T00:00:00Z",
    )
    api, web = plain(text)["api"], plain(text)["web"]
    assert api["image"] == "sha256:1"
    assert [(p["host_ip"], p["published"], p["target"]) for p in api["ports"]] == [
        ("127.0.0.1", "8001", 8080),
        ("10.0.0.5", "8001", 8080),
    ]
    assert api["env_file"] == ["/srv/sh$$p/releases/1.3.0-ab/api/env"]
    assert api["environment"]["PORT"] == "8080" and api["environment"]["RELEASE"] == "1.3.0-ab"
    assert api["labels"] == {"signalbox.runbook.slot": "blue"}
    assert api["restart"] == "unless-stopped" and "restart" not in web
    assert text.count('"ports": !override [') == 2


def test_text_that_looks_like_ours_stays_text():
    odd = '"ports": ['
    labels = {"x": odd}
    text = _compose.overlay(manifest(ports={}), Path("/r"), [Service("ports", 1)], ["::1"], "blue", labels, odd)
    assert plain(text)["ports"]["labels"] == {"x": odd}
    assert text.count("!override") == 1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], ["127.0.0.1"]),
        (["127.0.0.1"], ["127.0.0.1"]),
        (["10.0.0.5"], ["127.0.0.1", "10.0.0.5"]),
        (["10.0.0.5", "0.0.0.0"], ["0.0.0.0"]),
        (["fd00::1"], ["127.0.0.1", "fd00::1"]),
    ],
)
def test_ports_are_published_where_the_probes_ask_and_where_the_routers_come(given, found):
    assert _docker.listening(given) == found


def test_a_name_is_no_address():
    with pytest.raises(RunbookError, match=r"'web1' is no IP address.*runtime_compose_addresses"):
        _docker.listening(["web1"])


WANTED = [{"name": "api", "environment": {"MODE": "x"}, "secrets": {"TOKEN": "t"}}]


def config(declared=None, **api):
    return {"services": {"api": api, "db": {"container_name": "db"}}, "volumes": declared or {}}


GOOD = {
    "nothing": config(),
    "one replica": config(deploy={"replicas": 1}),
    "an external volume": config({"data": {"external": True}}, volumes=[{"type": "volume", "source": "data"}]),
    "a nameless volume": config(volumes=[{"type": "volume", "target": "/cache"}]),
    "an absolute path": config(volumes=[{"type": "bind", "source": "/etc/shop", "target": "/c"}]),
    "other variables": config(environment={"OTHER": "1"}),
    "a bridge": config(network_mode="bridge"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_two_slots_can_share(case):
    _compose.check_config(GOOD[case], WANTED, Path("/b/compose"))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (config(environment={"TOKEN": "1"}), "sets TOKEN under environment"),
        (config(container_name="api"), "container_name"),
        (config(network_mode="container:x"), "network_mode container:x"),
        (config(scale=2), "has 2 replicas"),
        (config({"d": {"name": "p_d"}}, volumes=[{"type": "volume", "source": "d"}]), "declare it below volumes"),
        (config(volumes=[{"type": "bind", "source": "/b/compose/x"}]), "mounts x from beside the compose files"),
        (
            {"services": {"web": {}, "db": {}}},
            "api of app_services is no service of the compose files: they have db, web",
        ),
        ({}, "no service of the compose files"),
    ],
)
def test_what_they_can_not_is_named(bad, said):
    with pytest.raises(RunbookError, match=said):
        _compose.check_config(bad, WANTED, Path("/b/compose"))


def test_the_same_files_in_the_same_order_for_every_call(tmp_path):
    docker = Docker()
    files = _compose.Files(docker, "shop-blue", tmp_path, tmp_path / "blue.yml")
    head = ["compose", "--ansi", "never", "--progress", "quiet", "--project-name", "shop-blue"]
    assert files.arguments() == head, "a release that is gone: by its name alone"
    (tmp_path / "compose").mkdir()
    for name in ("01-b.yml", "00-z.yml", "02-a.yml"):
        (tmp_path / "compose" / name).touch()
    (tmp_path / "compose.env").touch()
    (tmp_path / "blue.yml").touch()
    words = files.arguments()[len(head) :]
    assert words[:4] == ["--project-directory", str(tmp_path / "compose"), "--env-file", str(tmp_path / "compose.env")]
    names = [Path(words[i + 1]).name for i, word in enumerate(words) if word == "--file"]
    assert names == ["00-z.yml", "01-b.yml", "02-a.yml", "blue.yml"]
    with pytest.raises(RunbookError, match="lower-case"):
        _compose.Files(docker, "Shop", tmp_path)


def test_the_longest_secret_is_hidden_first():
    assert _compose.masked(["a topsecret and secret"], ["topsecret", "secret"]) == ["a ******** and ********"]


def slot(tmp_path, **answers):
    def run(argv, _environment, _timeout, _keep_open):
        return answers.get(argv[1], (0, "", ""))

    return _compose.ComposeSlot(tmp_path, "shop", "shop", "blue", Docker(run=run), holders=lambda _ports: [])


def test_a_damaged_record_is_a_sentence(tmp_path):
    (tmp_path / "slots").mkdir()
    for text in ("{", "[]", "{}", '{"application": "shop"}', "5"):
        (tmp_path / "slots" / "blue.json").write_text(text)
        with pytest.raises(RunbookError, match=r"is damaged .*docker compose -p shop-blue down"):
            slot(tmp_path).record()
        assert "is damaged" in slot(tmp_path).survey([], True)["problem"]


def test_a_record_of_another_project_is_refused(tmp_path):
    (tmp_path / "slots").mkdir()
    record = {
        "application": "shop",
        "project": "old-blue",
        "release": "r",
        "version": "1",
        "services": [],
        "started": {},
    }
    (tmp_path / "slots" / "blue.json").write_text(json.dumps(record))
    with pytest.raises(RunbookError, match="keep runtime_compose_project as it was"):
        slot(tmp_path).record()


def test_nothing_there_is_nothing_to_stop(tmp_path):
    assert slot(tmp_path).stop() == {"changed": False, "connections_cut": 0, "log": {}}
    assert slot(tmp_path).survey([], True)["release"] == ""


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_the_live_slot_is_not_touched(tmp_path, verb):
    with pytest.raises(RunbookError, match="blue takes the traffic"):
        if verb == "start":
            slot(tmp_path).start({"id": "r", "version": "1"}, [{"name": "api", "port": 1}], "blue")
        else:
            slot(tmp_path).stop([], "blue")


def test_names():
    with pytest.raises(RunbookError, match="project 'Shop' must be lower-case"):
        _compose.ComposeSlot("/h", "shop", "Shop", "blue", Docker())
    with pytest.raises(RunbookError, match="slot 'red' must be one of"):
        _compose.ComposeSlot("/h", "shop", "shop", "red", Docker())
    assert _images.kept_name("shop", "api", "1.0+x-ab") == "runbook/shop-api:1.0_x-ab"


@pytest.mark.parametrize("again", [False, True])
def test_a_pull_that_does_not_end_says_of_which_image(again):
    def run(argv, *_rest):
        if "pull" in argv:
            raise RunbookError("docker pull did not end within 9 s and was stopped")
        return 1, "", "Error: No such image: x"

    digest = f"registry.example.com/api@sha256:{'5' * 64}"
    part = {"reference": digest, "image_id": f"sha256:{'6' * 64}", "digests": [digest]}
    with pytest.raises(RunbookError) as caught:
        if again:
            _images.fetch_again(Docker(run=run), part, 9)
        else:
            _images.obtain(Docker(run=run), digest, "missing", "api", 9)
    assert f"the image {digest} " in str(caught.value) and "did not end within 9 s" in str(caught.value)
