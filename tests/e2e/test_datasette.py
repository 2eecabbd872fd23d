"""Applications that are not ours: datasette from PyPI, a wheel, a tag of a git repository."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook_site import Play, Site, make_site

OLD, NEW = "0.64.8", "0.65.1"


def use(site: Site, service: dict[str, Any], **more: Any) -> None:
    """The inventory of this lab with another service in it."""
    model = site.inventory / "group_vars" / "all.yml"
    variables = yaml.safe_load(model.read_text(encoding="utf-8"))
    kept = variables["app_services"][0]
    variables["app_services"] = [
        {key: kept[key] for key in ("name", "port", "ports", "start_seconds", "stop_seconds", "drain_seconds")}
        | service
    ]
    variables.update(more)
    model.write_text(yaml.safe_dump(variables), encoding="utf-8")


def ask(site: Site, path: str) -> Any:
    with urllib.request.urlopen(site.lab.front_url + path, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.requirement("RB-03", "RB-04")
def test_datasette_from_pypi_up_and_back(small_site: Site) -> None:
    site = small_site
    use(
        site,
        {
            "artifact": {"python": ["datasette=={{ app_version }}"]},
            "command": 'datasette serve --host 127.0.0.1 --port "$PORT" --metadata metadata.json --memory',
            "files": {"metadata.json": json.dumps({"title": "Deployed by a runbook"})},
            "health": {"path": "/-/databases.json", "body": "_memory"},
            "version": {"path": "/-/versions.json", "key": "datasette.version"},
            "start_seconds": 60,
        },
        accounting_path="/-/versions.json",
    )
    first = site.deploy(OLD, timeout=400)
    assert first.code == 0, first.output
    assert ask(site, "/-/versions.json")["datasette"]["version"] == OLD
    assert ask(site, "/-/metadata.json")["title"] == "Deployed by a runbook"

    upgrade = site.deploy(NEW, timeout=400, watch_seconds=3, watch_interval_seconds=0.5)
    assert upgrade.code == 0, upgrade.output
    assert ask(site, "/-/versions.json")["datasette"]["version"] == NEW
    assert upgrade.report and upgrade.report["requests"]["failed"] == 0
    assert set(upgrade.report["requests"]["by_version"]) == {OLD, NEW}

    back = site.rollback(rollback_to=OLD)
    assert back.code == 0, back.output
    assert ask(site, "/-/versions.json")["datasette"]["version"] == OLD
    assert back.report and back.report["requests"]["failed"] == 0
    assert site.live() == OLD


HELLO = """\
import http.server, json, os

VERSION = "{version}"
TOLD = ("DEPLOYED_VERSION", "DEPLOYED_COMMIT", "DEPLOYED_AT", "RELEASE")


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        said = {{"version": VERSION, **{{key: value for key, value in os.environ.items() if key in TOLD}}}}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


def main():
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello).serve_forever()


if __name__ == "__main__":
    main()
"""


def git(repository: Path, *words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(repository), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=60).stdout


def make_repository(directory: Path) -> str:
    """A repository with the tag v1.0.0 and, on its branch, a later commit; the commit of the tag."""
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch", "main")
    for version in ("1.0.0", "1.0.1"):
        (directory / "hello.py").write_text(HELLO.format(version=version), encoding="utf-8")
        git(directory, "add", "hello.py")
        git(directory, "commit", "--quiet", "-m", version)
        if version == "1.0.0":
            git(directory, "tag", "v1.0.0")
    return git(directory, "rev-parse", "v1.0.0").strip()


def make_wheel(directory: Path, version: str) -> tuple[Path, str]:
    about = f"hello-{version}.dist-info"
    files = {
        "hello.py": HELLO.format(version=version),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: hello\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": "[console_scripts]\nhello-serve = hello:main\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n"
    path = directory / f"hello-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def hello_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A lab of its own, because another application on the same ports is not ours to stop."""
    yield from make_site(tmp_path_factory.mktemp("hello"), 1)


def deploy(site: Site, version: str, artifact: dict[str, Any], command: str) -> Play:
    probe = {"path": "/version", "expect": {"version": "{{ app_version }}"}}
    use(
        site,
        {"artifact": artifact, "command": command, "health": probe, "version": {"path": "/version", "key": "version"}},
    )
    return site.deploy(version)


@pytest.mark.requirement("REC-02")
def test_tag_of_a_git_repository_then_a_wheel(hello_site: Site, tmp_path: Path) -> None:
    site = hello_site
    commit = make_repository(tmp_path / "hello")
    repository = str(tmp_path / "hello")
    moving = deploy(site, "1.0.0", {"git": repository, "ref": "main"}, "python3 hello.py")
    assert moving.code != 0
    assert f"ref 'main' is a branch of {repository}, which moves: name a tag or a commit" in moving.output
    tagged = deploy(site, "1.0.0", {"git": repository, "ref": "v1.0.0"}, "python3 hello.py")
    assert tagged.code == 0, tagged.output
    answer = ask(site, "/version")
    assert (answer["version"], answer["DEPLOYED_VERSION"], answer["DEPLOYED_COMMIT"]) == ("1.0.0", "1.0.0", commit)
    assert answer["RELEASE"].startswith("1.0.0-")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["DEPLOYED_AT"])

    wheel, sha256 = make_wheel(tmp_path, "2.0.0")
    installed = deploy(site, "2.0.0", {"wheel": str(wheel), "sha256": sha256}, "hello-serve")
    assert installed.code == 0, installed.output
    assert site.answers() == {"2.0.0"}
    back = site.rollback()
    assert back.code == 0, back.output
    assert site.answers() == {"1.0.0"}
