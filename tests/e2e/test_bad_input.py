"""Everything that can be wrong with what a person gives: one clear sentence each, and nothing touched."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runbook_site import Play, Site, tree

HEX = "0" * 64
PLACEHOLDER = "is empty or a placeholder; give the real value, from a vault or the environment"
NOT_A_VAULT_SECRET = "$ANSIBLE_VAULT;1.1;AES256\n          " + "6" * 80


class Wrong(NamedTuple):
    """What is given, by edits of the lab's model and inventory and on the command line; what must be said."""

    said: str
    verb: str = "deploy"
    edits: tuple[tuple[str, str], ...] = ()
    variables: dict[str, Any] = {}
    options: tuple[str, ...] = ()
    hosts: dict[str, list[str]] = {}


def edit(old: str, new: str) -> tuple[tuple[str, str], ...]:
    return ((old, new),)


def secret(value: str) -> tuple[tuple[str, str], ...]:
    return edit("    health:\n", f"      API_KEY: {value}\n    health:\n")


SERVICE = "app_services[0]"

MODEL: dict[str, Wrong] = {
    "unknown app_ variable": Wrong(
        "app_verison: unknown key; did you mean app_version?", variables={"app_verison": "1.1.0"}
    ),
    "unknown watch_ variable": Wrong(
        "watch_error_rate: unknown key; did you mean watch_error_rate_percent?", variables={"watch_error_rate": 5}
    ),
    "no version": Wrong(
        "app_version: is missing; say which version to deploy, for example -e app_version=1.3.0",
        variables={"app_version": ""},
    ),
    "version that is no file name": Wrong(
        "app_version: '../1.1.0' must be letters, digits and any of . _ + -", variables={"app_version": "../1.1.0"}
    ),
    "version that was never built": Wrong(
        f"{SERVICE}.artifact.sha256 (on target1): ", variables={"app_version": "9.9.9"}
    ),
    "rollback without a reason": Wrong(
        "app_reason: is missing; say why you roll back, for example -e app_reason='errors since 14:02'",
        verb="rollback",
    ),
    "rollback to a release that never was": Wrong(
        "rollback_to: no verified release '7.7.7' in the records; there are: none",
        verb="rollback",
        variables={"app_reason": "a test", "rollback_to": "7.7.7"},
    ),
    "rollback with nothing to go back to": Wrong(
        "there is nothing to roll back to: 1.0.0 is live and no verified release was live before it",
        verb="rollback",
        variables={"app_reason": "a test"},
    ),
    "no routers": Wrong(
        "inventory group routers: is missing or empty; it names the hosts that send the traffic", hosts={"routers": []}
    ),
    "two state hosts": Wrong("inventory group state: must be one host, not 2", hosts={"state": ["state1", "state2"]}),
    "a part of the fleet": Wrong(
        "--limit target1: leaves out hosts that have to take part, because all of them change or none does. "
        "Run it without --limit. Nothing has been touched.",
        options=("--limit", "target1"),
    ),
    "placeholder for a secret": Wrong(f"{SERVICE}.secrets.API_KEY: {PLACEHOLDER}", edits=secret("changeme")),
    "secret from an environment that lacks it": Wrong(
        f"{SERVICE}.secrets.API_KEY: {PLACEHOLDER}", edits=secret("\"{{ lookup('env', 'RUNBOOK_NO_SUCH_KEY') }}\"")
    ),
    "secret from a file that is not there": Wrong(
        "Unable to access the file '/no/such/key'", edits=secret("\"{{ lookup('file', '/no/such/key') }}\"")
    ),
    "secret that needs the vault's password": Wrong(
        f"{SERVICE}.secrets.API_KEY (on target1): ", edits=secret(f"!vault |\n          {NOT_A_VAULT_SECRET}")
    ),
    "undefined variable": Wrong(
        f"{SERVICE}.secrets.API_KEY (on target1): 'nobody_defined_this' is undefined",
        edits=secret('"{{ nobody_defined_this }}"'),
    ),
    "secret in the command": Wrong(
        f"{SERVICE}.command: contains the secret API_KEY; use $API_KEY, the command line is public",
        edits=(*secret("hunter2hunter2"), *edit('--port "$PORT"', '--port "$PORT" --key hunter2hunter2')),
    ),
    "steps that fall": Wrong(
        "app_steps[1].weight: 20 does not rise above the 50 of the step before",
        variables={"app_steps": [{"weight": 50}, {"weight": 20}, {"weight": 100}]},
    ),
    "steps that end early": Wrong(
        "app_steps[0].weight: the last step must be 100 percent, not 50", variables={"app_steps": [{"weight": 50}]}
    ),
    "steps that are no list": Wrong("app_steps: must be a list, not text", variables={"app_steps": "50"}),
    "one port for both slots": Wrong(
        f"{SERVICE}.ports.green: port ",
        edits=edit('green: "{{ local_ports.green }}"', 'green: "{{ local_ports.blue }}"'),
    ),
    "port that is no number": Wrong(
        f"{SERVICE}.ports.green: must be a whole number, not 'green'",
        edits=edit('green: "{{ local_ports.green }}"', "green: green"),
    ),
    "URL without a scheme": Wrong(
        "app_url: '127.0.0.1:80' must be a URL like http://127.0.0.1:8080, without query",
        variables={"app_url": "127.0.0.1:80"},
    ),
    "misspelt key of a service": Wrong(
        f"{SERVICE}.start_second: unknown key; did you mean start_seconds?",
        edits=edit("start_seconds:", "start_second:"),
    ),
    "no health probe": Wrong(
        f"{SERVICE}.health: is missing; give The probe that proves the service healthy",
        edits=edit("    health:\n      path: /health\n      expect:\n        status: ok\n", ""),
    ),
    "artifact of two kinds": Wrong(
        f"{SERVICE}.artifact: must have exactly one of archive, python, wheel, git, apt; it has archive and git",
        edits=edit("    artifact:\n", "    artifact:\n      git: /srv/demo.git\n"),
    ),
    "requirement without a version": Wrong(
        f"{SERVICE}.artifact.python[0]: 'datasette' must name an exact version, like datasette==0.65.1",
        variables={
            "app_services": [
                {
                    "name": "backend",
                    "port": 18000,
                    "artifact": {"python": ["datasette"]},
                    "command": "datasette",
                    "health": {"path": "/"},
                    "version": {"path": "/version"},
                }
            ]
        },
    ),
    "watch without requests": Wrong(
        "accounting_requests_per_second: is 0, so a watch would see no data; set watch_seconds to 0 too",
        variables={"watch_seconds": 10, "accounting_requests_per_second": 0},
    ),
}


def given(site: Site, wrong: Wrong, directory: Path) -> Site:
    """The site with an inventory of its own, wrong in this way."""
    inventory = directory / "inventory"
    shutil.copytree(site.inventory, inventory)
    model = inventory / "group_vars" / "all.yml"
    text = model.read_text(encoding="utf-8")
    for old, new in wrong.edits:
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the model"
        text = text.replace(old, new)
    model.write_text(text, encoding="utf-8")
    hosts = json.loads((inventory / "hosts.yml").read_text(encoding="utf-8"))
    for group, names in wrong.hosts.items():
        hosts["all"]["children"][group]["hosts"] = {name: {} for name in names}
    (inventory / "hosts.yml").write_text(json.dumps(hosts), encoding="utf-8")
    changed = copy.copy(site)
    changed.inventory = inventory
    return changed


def play(site: Site, wrong: Wrong, directory: Path) -> Play:
    variables = {"app_version": "1.1.0", **wrong.variables} if wrong.verb == "deploy" else wrong.variables
    return given(site, wrong, directory).run(wrong.verb, *wrong.options, **variables)


@pytest.fixture(scope="module")
def live(small_site: Site) -> Site:
    small_site.release("1.0.0")
    small_site.release("1.1.0")
    first = small_site.deploy("1.0.0")
    assert first.code == 0, first.output
    return small_site


def everything(site: Site) -> dict[str, Any]:
    return tree(site.lab.root / "targets", site.lab.root / "router", site.state, site.reports)


@pytest.fixture(scope="module")
def plays(live: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Play], bool]]:
    """Every row once, two at a time; and whether anything was touched by them all."""
    before = everything(live)
    with ThreadPoolExecutor(2) as pool:
        directories = [tmp_path_factory.mktemp("wrong") for _time in MODEL]
        done = dict(zip(MODEL, pool.map(play, [live] * len(MODEL), MODEL.values(), directories)))
    yield done, everything(live) == before


@pytest.mark.requirement("APP-01")
@pytest.mark.parametrize("what", MODEL)
def test_model_and_command_line(plays: tuple[dict[str, Play], bool], what: str) -> None:
    done = plays[0][what]
    assert done.code != 0
    assert MODEL[what].said in done.output, done.output
    assert "Nothing has been touched." in done.output, done.output
    assert "Traceback" not in done.output, done.output
    assert len(done.output.splitlines()) <= 5, done.output


def test_none_of_them_touched_anything(plays: tuple[dict[str, Play], bool], live: Site) -> None:
    assert plays[1], "a file of the targets, the router or the records is not what it was"
    assert live.answers(3) == {"1.0.0"}


# -- artifacts: they are looked at when the release is made, so such a run has a number and a record --------------


def member(name: str, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info


def packed(*members: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info in (member("server.py"), *members):
            archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return stream.getvalue()


ARTIFACTS: dict[str, tuple[bytes, str]] = {
    "missing": (b"", "archive of the service backend: cannot read {path}: No such file or directory"),
    "another file": (packed(), "archive of the service backend: {path} has sha256 {sha256}, but {hex} was expected"),
    "no archive": (b"<html>404 Not Found</html>", "{path} is not a whole tar archive (plain, gz, xz or bz2)"),
    "out of the tree": (packed(member("../evil.py")), "has the member '../evil.py' with '..' in its path"),
    "absolute path": (packed(member("/etc/evil")), "has the member '/etc/evil' with an absolute path"),
    "link that leads out": (
        packed(member("data", type=tarfile.SYMTYPE, linkname="../../../..")),
        "has the link 'data' to '../../../..', which leads out of the tree or in circles",
    ),
    "device": (
        packed(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
        "has the member 'null', which is a device file; only files, directories and links are allowed",
    ),
}


@pytest.mark.requirement("DEP-11")
@pytest.mark.parametrize("what", ARTIFACTS)
def test_artifact(live: Site, tmp_path: Path, what: str) -> None:
    content, said = ARTIFACTS[what]
    path = live.lab.root / "artifacts" / "demo-4.0.0.tar.gz"
    path.unlink(missing_ok=True)
    if what != "missing":
        path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    stated = HEX if what == "another file" else sha256
    path.with_name(f"{path.name}.sha256").write_text(f"{stated}  {path.name}\n", encoding="ascii")

    def kept() -> dict[str, Any]:
        found = tree(live.lab.root / "targets", live.lab.root / "router")
        return {name: entry for name, entry in found.items() if not name.endswith("/fence")}

    before, runs = kept(), len(live.history())
    bad = live.deploy("4.0.0")
    assert bad.code != 0
    assert bad.outcome == "failed"
    assert said.format(path=path, sha256=sha256, hex=HEX) in bad.output, bad.output
    assert "Traceback" not in bad.output
    assert kept() == before
    assert [record["outcome"] for record in live.history()[runs:]] == ["failed"]
    assert live.live() == "1.0.0"
    assert live.answers(3) == {"1.0.0"}
