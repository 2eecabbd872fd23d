# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules and the action plugin as ansible-playbook runs them, without and with an upload."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.signalbox.runbook.plugins.modules import release, release_prune

# The local connection under another name: for the action plugin a host that does not see the controller's files.
REMOTE = """
DOCUMENTATION = '''
name: remote
short_description: local, by another name
description: For tests.
author: tests
options: {}
'''
from ansible.plugins.connection.local import Connection as Local

class Connection(Local):
    transport = "remote"
"""
SECRET = "first-line-of-secret\nsecond-line-of-secret"
Play = Callable[..., dict[str, Any]]


def make_archive(path: Path, content: bytes = b"#!/bin/sh\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("show")
        info.size, info.mode = len(content), 0o755
        archive.addfile(info, io.BytesIO(content))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "files" / "web.tar.gz")


@pytest.fixture
def args(home: Path, archive: Path) -> dict[str, Any]:
    return {
        "home": str(home),
        "fence": 3,
        "id": "1.0-abcd1234",
        "version": "1.0",
        "services": [
            {
                "name": "web",
                "artifact": {"archive": str(archive), "sha256": sha256(archive)},
                "command": "./show",
                "secrets": {"TOKEN": SECRET},
                "files": {"conf.toml": "password-in-a-file\n"},
            }
        ],
    }


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run one task with ansible-playbook in ``tmp_path``; returns its result."""
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "connections").mkdir()
    (tmp_path / "connections" / "remote.py").write_text(REMOTE)

    def do(args: dict[str, Any], *options: str, connection: str = "local") -> dict[str, Any]:
        task = {"signalbox.runbook.release": args, "register": "answer", "ignore_errors": True}
        keep = {"ansible.builtin.copy": {"content": "{{ answer | to_json }}", "dest": str(tmp_path / "answer.json")}}
        (tmp_path / "play.yml").write_text(
            json.dumps(
                [{"hosts": "all", "gather_facts": False, "tasks": [task, {**keep, "check_mode": False, "diff": False}]}]
            )
        )
        inventory = f"target ansible_connection={connection} ansible_python_interpreter={sys.executable}\n"
        (tmp_path / "inventory").write_text(inventory)
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "inventory", "play.yml", *options],
            cwd=tmp_path,
            check=False,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(Path(release.__file__).absolute().parents[5]),
                "ANSIBLE_CONNECTION_PLUGINS": str(tmp_path / "connections"),
                "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote-tmp"),
                "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local-tmp"),
                "ANSIBLE_DEPRECATION_WARNINGS": "0",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (tmp_path / "answer.json").exists(), done.stdout + done.stderr
        answer: dict[str, Any] = json.loads((tmp_path / "answer.json").read_text())
        (tmp_path / "answer.json").unlink()
        answer["output"] = done.stdout + done.stderr
        return answer

    return do


def uploads(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "remote-tmp").rglob("*.tar.gz"))


def test_staged_without_upload_when_local_with_nothing_secret_shown(
    play: Play, args: dict[str, Any], home: Path
) -> None:
    answer = play(args, "-vvv", "--diff")
    path = home / "releases" / "1.0-abcd1234"
    assert (answer["changed"], answer["outcome"], answer["path"]) == (True, "made", str(path)), answer
    assert answer["diff"] == {"before": {"1.0-abcd1234": "absent"}, "after": {"1.0-abcd1234": "whole"}}
    assert os.access(path / "web/app/show", os.X_OK) and (home / "fence").read_text() == "3\n"
    assert "second-line-of-secret" in (path / "web/env").read_text()
    assert "of-secret" not in str(answer) and "password-in-a-file" not in str(answer)
    assert "module_args" in answer["output"] and str(path) in answer["output"]
    again = play(args)
    assert (again["changed"], again["outcome"]) == (False, "present")


def test_artifacts_are_uploaded_and_the_copies_removed(
    play: Play, args: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    # Two archives of one name, one of them relative to the play's "files".
    other = make_archive(tmp_path / "other" / "web.tar.gz", b"other")
    args["services"][0]["artifact"]["archive"] = "web.tar.gz"
    artifact = {"archive": str(other), "sha256": sha256(other)}
    args["services"].append({"name": "api", "artifact": artifact, "command": "./show"})
    answer = play(args, "-vvv", connection="remote")
    path = home / "releases" / "1.0-abcd1234"
    assert (answer["changed"], answer["outcome"]) == (True, "made"), answer
    assert (path / "web/app/show").read_bytes() == b"#!/bin/sh\n"
    assert (path / "api/app/show").read_bytes() == b"other"
    recorded = json.loads((path / "manifest.json").read_text())["services"]
    assert {name: entry["artifact"]["archive"] for name, entry in recorded.items()} == dict.fromkeys(
        ("web", "api"), "web.tar.gz"
    )
    assert f"PUT {other} TO {tmp_path / 'remote-tmp'}" in answer["output"] and uploads(tmp_path) == []


def test_the_wrong_artifact_never_reaches_the_target(play: Play, args: dict[str, Any], home: Path) -> None:
    artifact = args["services"][0]["artifact"]
    actual, artifact["sha256"] = artifact["sha256"], "0" * 64
    answer = play(args, connection="remote")
    assert answer["failed"] and actual in answer["msg"] and "0" * 64 in answer["msg"]
    artifact["archive"] = "not-there.tar.gz"
    assert "not-there.tar.gz" in play(args, connection="remote")["msg"]
    assert not home.exists()


def test_check_mode_predicts_without_an_upload(play: Play, args: dict[str, Any], home: Path, archive: Path) -> None:
    answer = play(args, "-vvv", "--check", "--diff", connection="remote")
    assert (answer["changed"], answer["outcome"], answer["bytes"]) == (True, "made", None), answer
    assert not home.exists()
    assert f"PUT {archive}" not in answer["output"] and "PUT " in answer["output"]


def test_present_uploads_only_what_turns_out_to_be_needed(
    play: Play, args: dict[str, Any], home: Path, archive: Path
) -> None:
    args["present"] = True
    answer = play(args, connection="remote")
    assert (answer["changed"], answer["outcome"]) == (True, "made"), answer
    archive.unlink()
    answer = play(args, connection="remote")
    assert (answer["changed"], answer["outcome"]) == (False, "present"), answer
    (home / "releases/1.0-abcd1234/web/run").unlink()
    make_archive(archive)
    args["services"][0]["artifact"]["sha256"] = sha256(archive)
    answer = play({**args, "digest": "another"}, connection="remote")
    assert "a release is never changed" in answer["msg"]


# --- in this process: what the modules answer -------------------------------------------------------------------


def call(module: Any, capsys: pytest.CaptureFixture[str], **args: Any) -> dict[str, Any]:
    with patch_module_args(args), pytest.raises(SystemExit):
        module.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_an_older_fencing_number_is_refused(
    args: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(release, capsys, **args)["changed"]
    for check in (False, True):
        for module, own in ((release, args), (release_prune, {"home": str(home), "remove": ["1.0-abcd1234"]})):
            answer = call(module, capsys, **{**own, "fence": 2, "_ansible_check_mode": check})
            assert answer["failed"] and answer["fenced"] and "2 is older than 3" in answer["msg"]
    assert (home / "releases" / "1.0-abcd1234" / "manifest.json").exists()


def test_a_failure_names_the_key_and_keeps_the_secret(args: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    args["services"][0]["secrets"]["BAD-KEY"] = "another-secret"
    answer = call(release, capsys, **args)
    assert answer["failed"] and "services[0].secrets.BAD-KEY" in answer["msg"]
    assert "another-secret" not in str(answer) and "of-secret" not in str(answer)


def test_nothing_secret_goes_to_the_targets_log(
    args: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda self, msg, log_args=None: logged.append(f"{msg} {log_args}"))
    assert call(release, capsys, **args)["changed"]
    assert "of-secret" not in str(logged)
    # The same recorder sees what another module logs.
    call(release_prune, capsys, home=args["home"], fence=3, remove=["gone"])
    assert "gone" in str(logged)


def test_prune_removes_what_is_named(args: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1", "2"):
        assert call(release, capsys, **{**args, "id": name})["changed"]
    prune = {"home": str(home), "fence": 3, "remove": ["1", "gone"], "keep": ["2"]}
    diff = {"before": {"releases": ["1", "2"]}, "after": {"releases": ["2"]}}
    for check, left in ((True, {"1", "2"}), (False, {"2"})):
        answer = call(release_prune, capsys, **prune, _ansible_check_mode=check)
        assert (answer["changed"], answer["removed"], answer["diff"]) == (True, ["1"], diff)
        assert {path.name for path in (home / "releases").iterdir()} == left
    answer = call(release_prune, capsys, **prune)
    assert (answer["changed"], answer["removed"]) == (False, [])
    assert "to be kept" in call(release_prune, capsys, **{**prune, "remove": ["2"]})["msg"]
    assert (home / "releases" / "2").exists()
