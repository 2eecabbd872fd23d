"""What a user gets: the collection as it is built and installed, on an empty path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = "signalbox.runbook"
WANTED = {"CHANGELOG.rst", "FILES.json", "LICENSE", "MANIFEST.json", "README.md"}
WANTED |= {"changelogs", "docs", "meta", "playbooks", "plugins", "roles"}
USEFUL = {"extensions", "inventories"}
DOCUMENTED = {"modules": "module", "callback": "callback", "filter": "filter"}
PLUGINS = [
    (kind, path.stem)
    for directory, kind in DOCUMENTED.items()
    for path in sorted((CHECKOUT / "plugins" / directory).glob("[a-z]*.py"))
]
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir() if path.is_dir())
SPECIFIED = [role for role in ROLES if (CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").exists()]
PLAYBOOKS = sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))


def ansible(program: str, *arguments: str, cwd: Path, collections: str = "") -> str:
    """The output of one of Ansible's programs, that sees no other configuration and no other collection."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHONPATH"))}
    environment.update(
        ANSIBLE_COLLECTIONS_PATH=collections or str(cwd / "none"),
        ANSIBLE_CONFIG=str(cwd / "empty.cfg"),
        ANSIBLE_COLLECTIONS_SCAN_SYS_PATH="false",
        ANSIBLE_HOME=str(cwd / "home"),
        ANSIBLE_LOCALHOST_WARNING="false",
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("collection")
    (directory / "empty.cfg").touch()
    return directory


@pytest.fixture(scope="module")
def artifact(work: Path) -> Path:
    ansible("ansible-galaxy", "collection", "build", str(CHECKOUT), "--output-path", str(work), cwd=work)
    (built,) = work.glob("signalbox-runbook-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(work: Path, artifact: Path) -> str:
    path = work / "collections"
    ansible("ansible-galaxy", "collection", "install", str(artifact), "--offline", "-p", str(path), cwd=work)
    return str(path)


def test_artifact_holds_what_users_need_and_nothing_else(artifact: Path) -> None:
    with tarfile.open(artifact) as tar:
        names = tar.getnames()
    assert {name.split("/")[0] for name in names} - USEFUL == WANTED
    assert [n for n in names if "/." in n or "__pycache__" in n or n.endswith((".pyc", "docs/requirements.md"))] == []


@pytest.mark.parametrize("kind", sorted(set(DOCUMENTED.values())))
def test_documentation_of_every_plugin_renders(kind: str, work: Path, installed: str) -> None:
    names = [f"{NAME}.{name}" for of, name in PLUGINS if of == kind]
    assert names
    told = json.loads(ansible("ansible-doc", "-t", kind, "-j", *names, cwd=work, collections=installed))
    assert sorted(told) == sorted(names)
    assert [name for name in names if not told[name]["doc"]["short_description"]] == []
    text = ansible("ansible-doc", "-t", kind, *names, cwd=work, collections=installed)
    assert [name for name in names if name not in text] == []


def test_documentation_of_every_specified_role_renders(work: Path, installed: str) -> None:
    names = [f"{NAME}.{role}" for role in SPECIFIED]
    told = json.loads(ansible("ansible-doc", "-t", "role", "-j", *names, cwd=work, collections=installed))
    assert sorted(name for name in told if told[name]["entry_points"]) == sorted(names)


def test_every_role_has_a_readme(installed: str) -> None:
    roles = Path(installed) / "ansible_collections" / "signalbox" / "runbook" / "roles"
    assert [role for role in ROLES if not (roles / role / "README.md").read_text(encoding="utf-8").strip()] == []


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbooks_are_found_by_their_full_name(playbook: str, work: Path, installed: str) -> None:
    said = ansible(
        "ansible-playbook", f"{NAME}.{playbook}", "-i", "localhost,", "--syntax-check", cwd=work, collections=installed
    )
    root = f"{installed}/ansible_collections/signalbox/runbook"
    assert said.split() == ["playbook:", f"{root}/playbooks/{playbook}.yml"]
