"""A secret is where the application reads it, readable by its owner only, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_site import Play, Site, as_elsewhere, make_site

API_KEY = "s3cr3t-api-key-5ef0c1a29b"
FILE_CONTENT = "s3cr3t-file-content-77d1e0"
QUOTED = "s3cr3t'quoted\"$HOME-31bb"
SPY = """
import syslog

_write = syslog.syslog


def spy(*words):
    with open({log!r}, "a", encoding="utf-8", errors="replace") as stream:
        stream.write(" ".join(map(str, words)) + "\\n")
    return _write(*words)


syslog.syslog = spy
"""


@pytest.fixture(scope="module", params=["in place", "carried there"])
def small_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One target, once as this machine and once as another: modules come to it in different ways."""
    for made in make_site(tmp_path_factory.mktemp("secrets"), 1):
        if request.param == "carried there":
            as_elsewhere(made)
        yield made


@pytest.fixture(scope="module")
def secrets(small_site: Site) -> dict[str, str]:
    """Every secret that is given, by name; the lab's passwords are given inside of URLs."""
    return {
        "api_key": API_KEY,
        "file": FILE_CONTENT,
        "quoted": QUOTED,
        "quoted, as a shell writes it": QUOTED.replace("'", "'\"'\"'"),
        "quoted, as JSON writes it": json.dumps(QUOTED)[1:-1],
        "database_password": small_site.lab.secrets["database_password"],
        "redis_password": small_site.lab.secrets["redis_password"],
    }


@pytest.fixture(scope="module")
def site(small_site: Site) -> Site:
    """The lab with more secrets in its model, and with what modules write to syslog in a file besides."""
    model = small_site.inventory / "group_vars" / "all.yml"
    text = model.read_text(encoding="utf-8")
    more = f"""\
      API_KEY: {API_KEY}
      QUOTED: {json.dumps(QUOTED)}
    files:
      settings/private.ini: {json.dumps(f"[app]{chr(10)}key = {FILE_CONTENT}{chr(10)}")}
    health:
"""
    assert text.count("    health:\n") == 1
    model.write_text(text.replace("    health:\n", more), encoding="utf-8")
    model.chmod(0o600)
    spy = small_site.directory / "spy"
    spy.mkdir()
    (spy / "sitecustomize.py").write_text(SPY.format(log=str(spy / "syslog")), encoding="utf-8")
    python = spy / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={spy} exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    hosts = small_site.inventory / "hosts.yml"
    inventory = json.loads(hosts.read_text(encoding="utf-8"))
    inventory["all"]["vars"]["ansible_python_interpreter"] = str(python)
    hosts.write_text(json.dumps(inventory), encoding="utf-8")
    return small_site


class CommandLines(threading.Thread):
    """Every command line of this machine while it runs: all may read them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes())


@contextlib.contextmanager
def command_lines() -> Iterator[CommandLines]:
    sampler = CommandLines()
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.ended.set()
        sampler.join(timeout=10)


def files_with(roots: list[Path], words: dict[str, str], since: float) -> list[tuple[Path, str, int]]:
    """Every file below the roots with a secret in it, and who may read it, through all directories above."""
    found = []
    for root in roots:
        for path in root.rglob("*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) or status.st_mtime < since or status.st_size > 50_000_000:
                    continue
                content = path.read_bytes()
                found += [(path, name, status.st_mode) for name, word in words.items() if word.encode() in content]
    return found


class Looked:
    """What one run left everywhere that somebody else may look."""

    def __init__(self, site: Site, verb: str, *options: str, **variables: Any) -> None:
        self.site = site
        self.began = time.time() - 1
        with command_lines() as sampler:
            self.play: Play = site.run(verb, *options, **variables)
        self.places = {"output": self.play.output.encode(), "a command line": b"\0".join(sampler.seen)}
        logs = [site.directory / "spy" / "syslog", *site.lab.root.rglob("*.log"), *site.reports.glob("*")]
        records = [path for path in site.state.rglob("*") if path.is_file()]
        router = [path for path in (site.lab.root / "router").rglob("*") if path.is_file()]
        for path in (*logs, *records, *router):
            if path.exists():
                self.places[str(path)] = path.read_bytes()

    def leaks(self, secrets: dict[str, str]) -> list[str]:
        return [
            f"{name} in {where}"
            for where, text in self.places.items()
            for name, word in secrets.items()
            if word.encode() in text
        ]

    def open_files(self, secrets: dict[str, str]) -> list[str]:
        """Files with a secret that anybody but their owner may read, or where no secret belongs."""
        home = self.site.lab.home("target1")
        given = (self.site.inventory, self.site.lab.root / "secrets.json", self.site.lab.root / "redis")
        roots = [self.site.directory, self.site.lab.private, Path.home() / ".ansible"]
        roots += list(Path(tempfile.gettempdir()).glob("*ansible*"))
        roots += list(Path(tempfile.gettempdir()).glob("runbook-accounting-*"))
        wrong = []
        for path, name, mode in files_with(roots, secrets, self.began):
            if path.is_relative_to(self.site.lab.private) or any(path == g or path.is_relative_to(g) for g in given):
                continue  # where the test and the lab themselves keep it
            if not path.is_relative_to(home / "releases"):
                wrong.append(f"{name} in {path}")
            elif mode & 0o077:
                wrong.append(f"{name} in {path}, mode {stat.S_IMODE(mode):04o}")
        return wrong


def check(looked: Looked, secrets: dict[str, str]) -> None:
    assert looked.leaks(secrets) == []
    assert looked.open_files(secrets) == []


@pytest.mark.requirement("XC-04", "APP-11")
def test_first_release_and_upgrade(site: Site, secrets: dict[str, str]) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    for version in ("1.0.0", "1.1.0"):
        looked = Looked(site, "deploy", "-vvvv", "--diff", app_version=version)
        assert looked.play.code == 0, looked.play.output[-3000:]
        assert len(looked.places["output"]) > 20_000, "this was not verbose"
        assert b"ansible-playbook" in looked.places["a command line"]
        said = looked.places.get(str(site.directory / "spy" / "syslog"), b"")
        assert (b"Invoked with" in said) == bool(site.settings), "modules say it where they are carried"
        check(looked, secrets)


def test_the_application_has_them(site: Site) -> None:
    """What makes the other tests worth something: the secrets are really where they belong."""
    home = site.lab.home("target1")
    release = json.loads((home / "slots" / "green.json").read_text(encoding="utf-8"))["release"]
    env = home / "releases" / release / "backend" / "env"
    private = home / "releases" / release / "backend" / "app" / "settings" / "private.ini"
    assert API_KEY in env.read_text(encoding="utf-8")
    assert FILE_CONTENT in private.read_text(encoding="utf-8")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (env, private)] == [0o600, 0o600]
    environments = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            environments.append(path.read_bytes().split(b"\0"))
    assert [True for e in environments if f"QUOTED={QUOTED}".encode() in e and b"SLOT=green" in e]


@pytest.mark.requirement("XC-04")
def test_check_mode_with_diff(site: Site, secrets: dict[str, str]) -> None:
    site.release("1.2.0")
    looked = Looked(site, "deploy", "-vvvv", "--check", "--diff", app_version="1.2.0")
    assert looked.play.code == 0, looked.play.output[-3000:]
    check(looked, secrets)


@pytest.mark.requirement("XC-04")
def test_failing_start(site: Site, secrets: dict[str, str]) -> None:
    site.release("1.3.0", fail_to_start=True)
    looked = Looked(site, "deploy", "-vvvv", "--diff", app_version="1.3.0")
    assert looked.play.outcome == "failed"
    assert "last log lines" in looked.play.output
    check(looked, secrets)


@pytest.mark.requirement("XC-04")
def test_rollback_and_status(site: Site, secrets: dict[str, str]) -> None:
    looked = Looked(site, "rollback", "-vvvv", "--diff", app_reason="a test")
    assert looked.play.outcome == "restored", looked.play.output[-3000:]
    check(looked, secrets)
    looked = Looked(site, "status", "-vvvv")
    assert looked.play.code == 0
    check(looked, secrets)


WRONG = {
    "in the command": ('--port "$PORT"', f'--port "$PORT" --key {API_KEY}'),
    "a list instead of a mapping": ("    secrets:\n", f"    secrets: [{API_KEY}]\n    secret:\n"),
    "text instead of a mapping": ("    files:\n", f"    files: {FILE_CONTENT}\n    file:\n"),
    "a probe that is a secret": ("      path: /health\n", f"      path: /health\n      status: [{API_KEY}]\n"),
    "text instead of the services": ("app_services:\n", f"app_services: '[{{secrets: {API_KEY}}}]'\nlocal_old:\n"),
    "a nested secret": (f"      API_KEY: {API_KEY}\n", f"      API_KEY: {{key: {API_KEY}}}\n"),
    "content that is no text": ("    files:\n", f"    files:\n      other.ini: {{key: {FILE_CONTENT}}}\n"),
    "a name of the runtime": (f"      API_KEY: {API_KEY}\n", f"      PORT: {API_KEY}\n"),
    "an error beside them": ("start_seconds: 15", "start_seconds: soon"),
}


@pytest.mark.requirement("XC-04")
@pytest.mark.parametrize("what", WRONG)
def test_failing_validation(site: Site, secrets: dict[str, str], what: str) -> None:
    model = site.inventory / "group_vars" / "all.yml"
    good = model.read_text(encoding="utf-8")
    old, new = WRONG[what]
    assert good.count(old) == 1
    model.write_text(good.replace(old, new), encoding="utf-8")
    try:
        bad = site.deploy("1.1.0", "-vvvv")
    finally:
        model.write_text(good, encoding="utf-8")
    assert bad.code != 0
    assert "STOPPED" in bad.output, bad.output[-3000:]
    assert [name for name, word in secrets.items() if word in bad.output] == [], bad.output[-3000:]
