"""The module as a play calls it: on a host, with templates and secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - signalbox.runbook.check_info:
        checks: "{{ app_checks }}"
      register: found
      ignore_errors: true
    - ansible.builtin.copy:
        content: "{{ found | to_json }}"
        dest: "{{ result }}"
        mode: "0600"
      delegate_to: localhost
      check_mode: false
"""


def play(directory: Path, checks: list[dict[str, Any]], *options: str, **variables: Any) -> tuple[dict[str, Any], str]:
    """What the module returned, and all that was printed."""
    hosts = {"one": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    for name, content in {
        "hosts.json": {"all": {"hosts": hosts, "vars": {"app_checks": checks, **variables}}},
        "play.yml": PLAY,
    }.items():
        (directory / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    result = directory / "result.json"
    command = [str(PLAYBOOK), "-vvv", "-i", "hosts.json", "-e", f"result={result}", "play.yml", *options]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "default"}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(CHECKOUT / "build" / "collections")
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.exists(), done.stdout + done.stderr
    return json.loads(result.read_text(encoding="utf-8")), done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_play_measures_and_hides_secrets(tmp_path: Path, options: tuple[str, ...]) -> None:
    settings = tmp_path / "env"
    settings.write_text("DATABASE_URL=postgresql://app:hush-hush@db/app\n", encoding="utf-8")
    checks: list[dict[str, Any]] = [
        {"name": "disk", "check": "disk", "path": str(tmp_path), "fail_when": {"free_percent": "< {{ percent }}"}},
        {"name": "memory", "check": "memory", "fail_when": {"used_percent": None}, "source": "nobody"},
        {"name": "settings", "check": "environment", "path": str(settings), "required": ["DATABASE_URL", "REDIS_URL"]},
        {"name": "cache", "check": "redis", "port": 1, "password": "{{ secret }}"},
        {"name": "database", "check": "postgres", "uri": "postgresql://app:{{ secret }}@127.0.0.1:1/app"},
        {"name": "api", "check": "http", "url": "http://127.0.0.1:1/", "secret_headers": {"X-Key": "{{ secret }}"}},
        {"name": "gone", "check": "log", "path": "/nowhere/at/all", "secrets": ["{{ secret }}"], "blocking": False},
    ]
    found, output = play(tmp_path, checks, *options, percent=0, secret="hush-hush")
    assert not found["failed"] and not found["changed"], output
    states = {one["name"]: one["status"] for one in found["checks"]}
    # Whether the host has psycopg is the host's matter; without it the database is missing.
    assert states.pop("database") in ("fail", "missing")
    assert states == {
        "disk": "pass", "memory": "pass", "settings": "fail", "cache": "fail", "api": "fail", "gone": "missing"
    }  # fmt: skip
    by_name = {one["name"]: one for one in found["checks"]}
    assert "missing keys: REDIS_URL" in by_name["settings"]["text"] and by_name["settings"]["advice"]
    assert by_name["gone"]["blocking"] is False
    assert "hush-hush" not in json.dumps(found)
    # Its own words are those after the task; the inventory's variables are not printed.
    assert "hush-hush" not in output


def test_a_play_with_bad_checks_says_all_that_is_wrong(tmp_path: Path) -> None:
    checks = [
        {"name": "a", "check": "dsik"},
        {"name": "b", "check": "disk", "fail_when": {"free_percent": "20"}, "url": "http://h/"},
    ]
    found, _output = play(tmp_path, checks)
    assert found["failed"]
    keys = [problem.partition(":")[0] for problem in found["problems"]]
    assert keys == ["checks[0].check", "checks[1].url", "checks[1].fail_when.free_percent"]
    assert "did you mean disk?" in found["msg"]
