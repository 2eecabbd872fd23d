"""The collection as its users have it: built, installed, and used from a directory of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runbook_site import CHECKOUT, Site

PROGRAMS = Path(sys.executable).parent


def ansible(program: str, *words: str, cwd: Path, collections: Path) -> str:
    """Ansible without any configuration of this checkout: its own callback, its own defaults."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHONPATH"))}
    empty = cwd / "empty.cfg"
    empty.touch()
    environment.update(
        ANSIBLE_COLLECTIONS_PATH=str(collections), ANSIBLE_CONFIG=str(empty), ANSIBLE_HOME=str(cwd / "ansible")
    )
    done = subprocess.run(
        [str(PROGRAMS / program), *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.smoke
def test_deploy_and_rollback_from_an_empty_directory(small_site: Site, tmp_path: Path) -> None:
    collections = tmp_path / "collections"
    ansible(
        "ansible-galaxy",
        "collection",
        "build",
        str(CHECKOUT),
        "--output-path",
        str(tmp_path),
        cwd=tmp_path,
        collections=collections,
    )
    (built,) = tmp_path.glob("signalbox-runbook-*.tar.gz")
    ansible(
        "ansible-galaxy",
        "collection",
        "install",
        str(built),
        "--offline",
        "-p",
        str(collections),
        cwd=tmp_path,
        collections=collections,
    )
    project = tmp_path / "project"
    project.mkdir()

    def play(verb: str, **variables: str) -> str:
        words = ("-i", str(small_site.inventory), "-e", json.dumps({"watch_seconds": 0, **variables}))
        return ansible("ansible-playbook", f"signalbox.runbook.{verb}", *words, cwd=project, collections=collections)

    for version in ("1.0.0", "1.1.0"):
        small_site.release(version)
        assert "PLAY RECAP" in play("deploy", app_version=version)
        assert small_site.answers(3) == {version}
    play("rollback", app_reason="a test")
    assert small_site.answers(3) == {"1.0.0"}
    assert "changed=0" in play("status").rpartition("PLAY RECAP")[2]
    reports = sorted(path.name for path in (project / "runbook-reports").iterdir())
    runs = [f"demo-local-run-{n}.{kind}" for n in (1, 2, 3) for kind in ("html", "json")]
    assert reports == ["demo-local-1.0.0.proof", "demo-local-1.1.0.proof", *runs]
