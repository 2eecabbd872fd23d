# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real tars, a real git repository and a real venv below tmp_path; no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pwd
import stat
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _release
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._release import (
    changing,
    manifests,
    parse,
    remove,
    run_bounded,
    stage,
    verify,
)

PRINT_ENVIRONMENT = b"#!/bin/sh\nenv -0\npwd\n"
SECRET = "s3cret with 'quotes', \"more\", $HOME, `id` \\ and\na second line"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home of app"
    home.mkdir()
    return home


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_tar(tmp_path / "web.tar.gz", {"web-1/bin/show": PRINT_ENVIRONMENT, "web-1/static/a.txt": b"a\n"})


@pytest.fixture
def spec(archive: Path) -> dict[str, Any]:
    return {
        "id": "1.0-abcd1234",
        "version": "1.0",
        "digest": "d" * 64,
        "services": [
            {
                "name": "web",
                "artifact": {"archive": str(archive), "sha256": sha256(archive), "strip_components": 1},
                "command": './bin/show "$PORT"',
                "environment": {"PLAIN": "yes", "NUMBER": 5, "FLAG": True},
                "secrets": {"TOKEN": SECRET},
                "files": {"conf/web.toml": "port = 1\n"},
                "commit": "0123abc",
            }
        ],
    }


def released(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "releases").iterdir()) if (home / "releases").exists() else []


def refusal(spec: dict[str, Any], home: Path, **options: Any) -> RunbookError:
    with pytest.raises(RunbookError) as caught:
        stage(spec, home, **options)
    return caught.value


def run_release(path: Path, **environment: str) -> dict[str, str]:
    """Run the service as the process manager does; the command prints its environment."""
    done = subprocess.run(
        ["/bin/sh", str(path / "web" / "run")],
        env={"PATH": os.environ["PATH"], "PORT": "8001", "SLOT": "blue", "DEPLOYED_AT": "now", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *variables, pwd = done.stdout.split("\0")
    return {**dict(item.split("=", 1) for item in variables), "pwd": pwd.strip()}


# --- a release of an archive ------------------------------------------------------------------------------------


def test_a_staged_release_runs_with_its_environment(spec: dict[str, Any], home: Path) -> None:
    result = stage(spec, home, clock=lambda: 1_700_000_000.0)
    path = home / "releases" / "1.0-abcd1234"
    assert result == {
        "changed": True,
        "outcome": "made",
        "path": str(path),
        "id": "1.0-abcd1234",
        "digest": "d" * 64,
        "bytes": sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and f.name != "manifest.json"),
        "commits": {"web": "0123abc"},
        "before": "absent",
        "same": {},
    }
    assert released(home) == ["1.0-abcd1234"]
    found = run_release(path)
    expected = {
        "TOKEN": SECRET,
        "PLAIN": "yes",
        "NUMBER": "5",
        "FLAG": "true",
        "PORT": "8001",
        "SLOT": "blue",
        "DEPLOYED_AT": "now",
        "DEPLOYED_VERSION": "1.0",
        "DEPLOYED_COMMIT": "0123abc",
        "RELEASE": "1.0-abcd1234",
        "pwd": str(path / "web" / "app"),
    }
    assert {key: found[key] for key in expected} == expected


def test_who_may_read_what(spec: dict[str, Any], home: Path) -> None:
    path = Path(stage(spec, home)["path"])
    modes = {
        name: stat.S_IMODE((path / name).stat().st_mode)
        for name in ("manifest.json", "web/env", "web/run", "web/app/conf/web.toml", "web/app/bin/show")
    }
    assert modes == {
        "manifest.json": 0o600,
        "web/env": 0o600,
        "web/run": 0o755,
        "web/app/conf/web.toml": 0o600,
        "web/app/bin/show": 0o755,
    }
    secret = SECRET.split("'", maxsplit=1)[0]
    holders = [str(f.relative_to(path)) for f in path.rglob("*") if f.is_file() and secret in f.read_text()]
    assert holders == ["web/env"]


def test_the_manifest_names_every_file(spec: dict[str, Any], home: Path, archive: Path) -> None:
    path = Path(stage(spec, home, clock=lambda: 1_700_000_000.0)["path"])
    manifest = json.loads((path / "manifest.json").read_text())
    files = manifest.pop("files")
    assert manifest == {
        "format": 1,
        "id": "1.0-abcd1234",
        "version": "1.0",
        "digest": "d" * 64,
        "made_at": "2023-11-14T22:13:20Z",
        "services": {
            "web": {
                "artifact": {"archive": "web.tar.gz", "sha256": sha256(archive), "strip_components": 1},
                "commit": "0123abc",
                "command": './bin/show "$PORT"',
                "secrets": ["TOKEN"],
            }
        },
    }
    assert set(files) == {"web/app/bin/show", "web/app/static/a.txt", "web/app/conf/web.toml", "web/env", "web/run"}
    assert files["web/app/static/a.txt"] == {"sha256": hashlib.sha256(b"a\n").hexdigest(), "size": 2, "mode": "0755"}


def test_a_second_time_nothing_is_written(spec: dict[str, Any], home: Path, archive: Path) -> None:
    path = Path(stage(spec, home)["path"])
    archive.unlink()
    before = {f: f.lstat() for f in [home / "releases", *home.rglob("*")]}
    again = stage(spec, home)
    assert (again["changed"], again["outcome"], again["before"]) == (False, "present", "whole")
    assert {f: f.lstat() for f in before} == before
    assert verify(path) == []


@pytest.mark.requirement("BLD-14")
def test_the_artifact_must_be_there_and_be_the_one_that_was_tested(
    spec: dict[str, Any], home: Path, archive: Path
) -> None:
    tested = sha256(archive)
    artifact = spec["services"][0]["artifact"]
    artifact["sha256"] = ""
    assert "services[0].artifact.sha256 must be the 64 hex digits" in str(refusal(spec, home))
    artifact["sha256"] = tested
    archive.rename(archive.with_suffix(".away"))
    assert str(archive) in str(refusal(spec, home))
    make_tar(archive, {"web-1/bin/show": b"something else"})
    message = str(refusal(spec, home))
    assert sha256(archive) in message and tested in message
    assert released(home) == []
    archive.with_suffix(".away").rename(archive)
    manifest = json.loads((Path(stage(spec, home)["path"]) / "manifest.json").read_text())
    assert manifest["services"]["web"]["artifact"]["sha256"] == tested


def test_a_harmful_archive_makes_no_release(spec: dict[str, Any], home: Path, archive: Path) -> None:
    make_tar(archive, {"web-1/ok": b"", "../../../../outside": b"evil"})
    spec["services"][0]["artifact"]["sha256"] = sha256(archive)
    assert "'..'" in str(refusal(spec, home))
    assert released(home) == []
    assert not list(home.parent.rglob("outside"))


def test_a_configuration_file_does_not_follow_the_archives_links(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "l.tar"
    with tarfile.open(path, "w") as archive:
        for name, target in (("conf", "."), ("real/link", "../conf")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("real/file"))
    service = {"name": "web", "command": "x", "artifact": {"archive": str(path), "sha256": sha256(path)}}
    spec = {"id": "1", "services": [{**service, "files": {"conf/x": "text"}}]}
    assert "services[web].files['conf/x'] goes through conf" in str(refusal(spec, home))
    spec["services"][0]["files"] = {"real": "text"}
    assert "is a directory in the artifact" in str(refusal(spec, home))
    spec["services"][0]["files"] = {"real/link": "text"}
    made = Path(stage(spec, home)["path"]) / "web" / "app"
    assert not (made / "real/link").is_symlink() and (made / "real/link").read_text() == "text"
    assert verify(made.parent.parent) == []


def test_too_little_space_is_said_before_anything_is_written(spec: dict[str, Any], home: Path, archive: Path) -> None:
    size = archive.stat().st_size
    error = refusal(spec, home, free=lambda path: 2 * size - 1)
    assert f"needs {2 * size} bytes" in str(error) and f"only {2 * size - 1} are free" in str(error)
    assert released(home) == []
    assert stage(spec, home, free=lambda path: 2 * size)["changed"]


def test_a_release_is_never_changed(spec: dict[str, Any], home: Path) -> None:
    path = Path(stage(spec, home)["path"])
    before = (path / "manifest.json").read_bytes()
    assert "a release is never changed" in str(refusal({**spec, "digest": "e" * 64}, home))
    assert (path / "manifest.json").read_bytes() == before


def test_without_a_digest_the_content_counts(spec: dict[str, Any], home: Path, archive: Path, tmp_path: Path) -> None:
    del spec["digest"]
    stage(spec, home)
    moved = tmp_path / "uploaded" / "web.tar.gz"
    moved.parent.mkdir()
    archive.rename(moved)
    spec["services"][0]["artifact"]["archive"] = str(moved)
    assert stage(spec, home)["changed"] is False
    spec["services"][0]["secrets"]["TOKEN"] = "another"
    assert "a release is never changed" in str(refusal(spec, home))


# --- damage -----------------------------------------------------------------------------------------------------


def test_damage_is_found_and_named(spec: dict[str, Any], home: Path) -> None:
    path = Path(stage(spec, home)["path"])
    (path / "web/app/__pycache__").mkdir()
    (path / "web/app/__pycache__/m.pyc").write_text("written by the application")
    (path / "web/app/data.db").write_text("written by the application")
    assert verify(path) == []
    (path / "web/app/static/a.txt").write_text("b\n")
    (path / "web/app/bin/show").unlink()
    (path / "web/env").chmod(0o644)
    (path / "web/run").unlink()
    (path / "web/run").symlink_to("env")
    assert verify(path) == [
        "web/app/bin/show is missing",
        "web/app/static/a.txt was altered",
        "web/env has other permissions",
        "web/run was altered",
    ]
    (path / "manifest.json").write_text("{")
    assert verify(path) == ["manifest.json is missing or not readable"]


def test_a_damaged_release_is_made_again_unless_it_is_in_use(spec: dict[str, Any], home: Path) -> None:
    path = Path(stage(spec, home)["path"])
    for name in ("web/app/static/a.txt", "web/app/bin/show", "web/env", "web/run"):
        (path / name).unlink()
    error = refusal({**spec, "in_use": ["1.0-abcd1234"]}, home)
    assert "web/app/bin/show is missing; web/app/static/a.txt is missing; web/env is missing; and 1 more" in str(error)
    assert error.details["problems"] == verify(path)
    predicted = stage(spec, home, check=True)
    assert (predicted["changed"], predicted["outcome"]) == (True, "rebuilt") and len(verify(path)) == 4
    result = stage({**spec, "in_use": ["0.9-00000000"]}, home)
    assert (result["changed"], result["outcome"], result["before"]) == (True, "rebuilt", "damaged")
    assert verify(path) == [] and released(home) == ["1.0-abcd1234"]


def test_what_is_not_ours_is_never_replaced(spec: dict[str, Any], home: Path) -> None:
    path = home / "releases" / "1.0-abcd1234"
    path.mkdir(parents=True)
    (path / "precious").write_text("x")
    assert "is no release of ours" in str(refusal(spec, home))
    assert released(home) == ["1.0-abcd1234"] and (path / "precious").read_text() == "x"


def test_present_needs_no_artifact_but_must_be_true(spec: dict[str, Any], home: Path, archive: Path) -> None:
    error = refusal({**spec, "present": True}, home)
    assert error.details == {"artifacts_needed": True} and released(home) == []
    path = Path(stage(spec, home)["path"])
    archive.unlink()
    assert stage({**spec, "present": True}, home)["outcome"] == "present"
    (path / "web" / "run").unlink()
    assert refusal({**spec, "present": True}, home).details == {"artifacts_needed": True}


def test_check_mode_predicts_and_writes_nothing(spec: dict[str, Any], home: Path, archive: Path) -> None:
    archive.unlink()
    result = stage(spec, home, check=True)
    assert (result["changed"], result["outcome"], result["bytes"]) == (True, "made", None)
    assert list(home.iterdir()) == []
    spec["services"][0]["environment"]["BAD-KEY"] = "x"
    assert "services[0].environment.BAD-KEY" in str(refusal(spec, home, check=True))


# --- the specification ------------------------------------------------------------------------------------------

WHEEL = {"wheel": "a-1-py3-none-any.whl", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"id": "../x"}, "id '../x' is no release id"),
        ({"id": ".x"}, "id '.x'"),
        ({"services": []}, "services is empty"),
        ({"name": "a/b"}, "services[0].name 'a/b'"),
        ({"name": "manifest.json"}, "services[0].name 'manifest.json'"),
        ({"command": " "}, "services[0].command must be one line"),
        ({"command": "a\nb"}, "services[0].command must be one line"),
        ({"environment": {"BAD-KEY": "x"}}, "services[0].environment.BAD-KEY is no variable name"),
        ({"secrets": {"A;rm": "x"}}, "services[0].secrets.A;rm is no variable name"),
        ({"secrets": {"": "x"}}, "services[0].secrets. is no variable name"),
        ({"environment": {"PORT": "1"}}, "services[0].environment.PORT is set for every process"),
        ({"environment": {"A": ["x"]}}, "services[0].environment.A must be a string"),
        ({"environment": {"A": None}}, "services[0].environment.A must be a string"),
        ({"environment": {"A": "x\0y"}}, "services[0].environment.A must be a string without NUL"),
        ({"environment": {"A": "1"}, "secrets": {"A": "2"}}, "services[0].secrets.A is in"),
        ({"files": {"../x": ""}}, "services[0].files['../x'] must be a relative path"),
        ({"files": {"/x": ""}}, "services[0].files['/x'] must be a relative path"),
        ({"files": {"a//x": ""}}, "services[0].files['a//x'] must be a relative path"),
        ({"files": {"x": {"a": 1}}}, "services[0].files['x'] must be text"),
        ({"artifact": {}}, "services[0].artifact needs exactly one of"),
        ({"artifact": {"archive": "a", "git": "b"}}, "services[0].artifact needs exactly one of"),
        ({"artifact": {"archive": "a", "sha256": "abc"}}, "services[0].artifact.sha256 must be the 64 hex digits"),
        ({"artifact": {**WHEEL, "wheel": "x.zip"}}, "services[0].artifact.wheel 'x.zip' is not named like a wheel"),
        ({"artifact": {"python": ["a==1", "-e ."]}}, "services[0].artifact.python[1] is no requirement"),
        ({"artifact": {"python": ["a==1\n-i x"]}}, "services[0].artifact.python[0] is no requirement"),
        ({"artifact": {"python": ["a==1 \\"]}}, "services[0].artifact.python[0] is no requirement"),
        ({"artifact": {"git": "u"}}, "services[0].artifact.ref must be a tag or a commit"),
        ({"artifact": {"git": "u", "ref": "a..b"}}, "services[0].artifact.ref must be a tag or a commit"),
        ({"artifact": {"git": "u", "ref": "--x"}}, "services[0].artifact.ref must be a tag or a commit"),
        ({"artifact": {"git": "--upload-pack=x", "ref": "v1"}}, "services[0].artifact.git must be a URL"),
    ],
)
def test_a_wrong_specification_is_refused_by_its_key(
    spec: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    if "id" in change or "services" in change:
        spec.update(change)
    else:
        spec["services"][0].update(change)
    with pytest.raises(RunbookError) as caught:
        parse(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize("url", ["https://user:pw-7@git.example/x", "https://pw-7@git.example/x", "ssh://u:pw-7@h/x"])
def test_credentials_in_urls_are_refused_and_not_repeated(spec: dict[str, Any], url: str) -> None:
    for artifact in ({"git": url, "ref": "v1"}, {"python": [f"x @ git+{url}"]}):
        spec["services"][0]["artifact"] = artifact
        with pytest.raises(RunbookError, match="credential") as caught:
            parse(spec)
        assert "pw-7" not in str(caught.value)


def test_two_services_of_one_name_are_refused(spec: dict[str, Any]) -> None:
    spec["services"] *= 2
    with pytest.raises(RunbookError, match="more than once"):
        parse(spec)


# --- killed at any step -----------------------------------------------------------------------------------------

STEPS = ("extract", "write_atomic", "write_json", "_inventory", "_publish", "fsync_directory")


def at_each_step(monkeypatch: pytest.MonkeyPatch, before_step: Callable[[], None]) -> None:
    """Call ``before_step`` ahead of everything that the build does to the disk."""

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            before_step()
            return original(*args, **options)

        monkeypatch.setattr(owner, name, wrapped)

    for name in STEPS:
        wrap(_release, name)
    for name in ("rename", "mkdir"):
        wrap(os, name)
    wrap(_release.shutil, "rmtree")


def staged_until(step: int, spec: dict[str, Any], home: Path, end: Callable[[], None]) -> Optional[bool]:
    """Stage with ``end`` called at step number ``step``: whether it was reached."""
    count = 0

    def before_step() -> None:
        nonlocal count
        count += 1
        if count == step:
            end()

    with pytest.MonkeyPatch.context() as patched:
        at_each_step(patched, before_step)
        stage(spec, home)
    return count >= step


def whole_or_invisible(home: Path, names: list[str]) -> None:
    ours, foreign = manifests(home)
    assert foreign == [] and [entry["id"] for entry in ours] in ([], names)
    for entry in ours:
        assert verify(home / "releases" / entry["id"]) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_killed_at_any_step_a_release_is_whole_or_invisible(
    spec: dict[str, Any], tmp_path: Path, damaged: bool
) -> None:
    step = 0
    reached = True
    while reached:
        step += 1
        home = tmp_path / f"home{step}"
        home.mkdir()
        if damaged:
            (Path(stage(spec, home)["path"]) / "web" / "run").unlink()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 3 if staged_until(step, spec, home, lambda: os._exit(9)) else 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        reached = code == 9
        if not damaged:
            whole_or_invisible(home, [spec["id"]])
        stage(spec, home)
        assert released(home) == [spec["id"]] and verify(home / "releases" / spec["id"]) == []
    assert step > 10


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_step_leaves_nothing_half_made(
    spec: dict[str, Any], tmp_path: Path, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    step = 0
    while True:
        step += 1
        home = tmp_path / f"home{step}"
        home.mkdir()
        try:
            staged_until(step, spec, home, fail)
        except (RunbookError, KeyboardInterrupt) as caught:
            if isinstance(error, OSError):
                assert "the disk is full" in str(caught) or "No space left on device" in str(caught)
            whole_or_invisible(home, [spec["id"]])
        else:
            break
        stage(spec, home)
        assert released(home) == [spec["id"]] and verify(home / "releases" / spec["id"]) == []
    assert step > 10


def test_leftovers_are_removed_and_foreign_dot_names_are_not(spec: dict[str, Any], home: Path) -> None:
    releases = home / "releases"
    for name in (".0.9-11112222.0a1b2c3d", ".damaged.0.9-11112222.0a1b2c3d", ".git", ".keep.me"):
        (releases / name / "sub").mkdir(parents=True)
    stage(spec, home)
    assert released(home) == [".git", ".keep.me", "1.0-abcd1234"]


def test_files_are_on_disk_before_the_release_is_visible(spec: dict[str, Any], home: Path) -> None:
    seen: list[list[str]] = []
    stage(spec, home, sync=lambda: seen.append([name for name in released(home) if not name.startswith(".")]))
    assert seen == [[]]


# --- git --------------------------------------------------------------------------------------------------------


def git(repository: Path, *argv: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(("git", "-C", str(repository), *identity, *argv), capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "origin"
    repository.mkdir()
    git(repository, "init", "-q")
    for version in ("one", "two", "three"):
        (repository / "version.txt").write_text(version)
        git(repository, "add", ".")
        git(repository, "commit", "-qm", version)
        if version == "one":
            git(repository, "tag", "v1")
        if version == "two":
            git(repository, "tag", "-am", "two", "v2")
    git(repository, "branch", "feature/x")
    return repository


def git_spec(repository: Path, ref: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "g-1",
        "version": "2",
        "digest": "x",
        "services": [{"name": "web", "command": "x", "artifact": {"git": str(repository), "ref": ref}, **more}],
    }


@pytest.mark.parametrize("ref, content", [("v1", "one"), ("v2", "two"), ("refs/tags/v2", "two")])
def test_a_tag_becomes_its_commit(repository: Path, home: Path, ref: str, content: str) -> None:
    result = stage(git_spec(repository, ref), home)
    path = Path(result["path"])
    commit = git(repository, "rev-parse", f"{ref}^{{commit}}")
    assert (path / "web/app/version.txt").read_text() == content
    assert not (path / "web/app/.git").exists() and not (path / ".scratch").exists()
    assert result["commits"] == {"web": commit}
    assert f"DEPLOYED_COMMIT={commit}" in (path / "web/run").read_text()
    recorded = json.loads((path / "manifest.json").read_text())["services"]["web"]
    assert recorded["commit"] == commit and recorded["artifact"] == {"git": str(repository), "ref": ref}


@pytest.mark.parametrize("length", [40, 8])
def test_a_commit_may_be_abbreviated(repository: Path, home: Path, length: int) -> None:
    commit = git(repository, "rev-parse", "main~1")
    assert stage(git_spec(repository, commit[:length]), home)["commits"] == {"web": commit}


@pytest.mark.parametrize("ref", ["main", "refs/heads/main", "feature/x", "HEAD"])
def test_a_branch_is_refused(repository: Path, home: Path, ref: str) -> None:
    assert f"ref {ref!r} is a branch of" in str(refusal(git_spec(repository, ref), home))
    assert released(home) == []


def test_other_refs_are_refused(repository: Path, home: Path, tmp_path: Path) -> None:
    assert "neither a tag nor a commit" in str(refusal(git_spec(repository, "v9"), home))
    assert "names no commit" in str(refusal(git_spec(repository, "abcdef1"), home))
    git(repository, "branch", "abcdef1")
    assert "is a branch" in str(refusal(git_spec(repository, "abcdef1"), home))
    assert "not abc as in commit" in str(refusal(git_spec(repository, "v1", commit="abc"), home))
    message = str(refusal(git_spec(tmp_path / "nowhere", "v1"), home))
    assert "git of" in message and "failed (exit code 128)" in message and "nowhere" in message
    assert released(home) == []


def test_a_tag_wins_over_a_branch_of_the_same_name(repository: Path, home: Path) -> None:
    git(repository, "branch", "v1", "main")
    assert (Path(stage(git_spec(repository, "v1"), home)["path"]) / "web/app/version.txt").read_text() == "one"


def test_a_link_out_of_the_tree_in_git_is_refused(repository: Path, home: Path) -> None:
    (repository / "out").symlink_to("/etc")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "link")
    git(repository, "tag", "v3")
    assert "'/etc'" in str(refusal(git_spec(repository, "v3"), home))


# --- Python -----------------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package with a console script, zipped by hand: building one would need the network."""
    files = {
        "tinyapp.py": "import os, sys\ndef main():\n print(sys.prefix, os.environ['PORT'], *sys.argv[1:], sep='|')\n",
        "tinyapp-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinyapp\nVersion: 1.0\n",
        "tinyapp-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tinyapp-1.0.dist-info/entry_points.txt": "[console_scripts]\ntinyapp = tinyapp:main\n",
    }
    record = "tinyapp-1.0.dist-info/RECORD"
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    path = tmp_path / "tinyapp-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, record: "".join(lines) + f"{record},,\n"}.items():
            archive.writestr(name, content)
    return path


def wheel_spec(wheel: Path, **artifact: Any) -> dict[str, Any]:
    service = {
        "name": "web",
        "command": 'tinyapp "$RELEASE"',
        "secrets": {"TOKEN": "tok-en"},
        "artifact": {"wheel": str(wheel), "sha256": sha256(wheel), **artifact},
    }
    return {"id": "w-1", "version": "1.0", "digest": "x", "services": [service]}


def test_a_wheel_runs_from_its_own_venv_after_the_rename(wheel: Path, home: Path) -> None:
    calls: list[list[str]] = []

    def run(argv: Sequence[str], cwd: Path, env: Any, timeout: float) -> tuple[int, str, str]:
        calls.append(list(argv))
        return run_bounded(argv, cwd, {**env, "PIP_NO_INDEX": "1"}, timeout)

    path = Path(stage(wheel_spec(wheel), home, run=run)["path"])
    venv = path / "web" / "venv"
    done = subprocess.run(
        ["/bin/sh", str(path / "web/run")],
        env={"PORT": "8001"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == f"{venv}|8001|w-1", done.stderr
    scripts = [*(venv / "bin").iterdir(), venv / "pyvenv.cfg"]
    assert not [f.name for f in scripts if not f.is_symlink() and b"releases/.w-1." in f.read_bytes()]
    # Running wrote bytecode; that is not damage.
    assert list(path.rglob("*.pyc")) and verify(path) == []
    assert [argv[1:4] for argv in calls] == [["-I", "-m", "venv"], ["-I", "-m", "pip"]]
    assert "tok-en" not in str(calls)
    recorded = json.loads((path / "manifest.json").read_text())["services"]["web"]["artifact"]
    assert recorded == {"python": [], "wheel": wheel.name, "sha256": sha256(wheel)}


def test_another_wheel_is_refused_before_pip_sees_it(wheel: Path, home: Path) -> None:
    spec = wheel_spec(wheel, sha256="0" * 64)

    def run(argv: Sequence[str], cwd: Path, env: Any, timeout: float) -> tuple[int, str, str]:
        raise AssertionError(argv)

    message = str(refusal(spec, home, run=run))
    assert sha256(wheel) in message and "0" * 64 in message and released(home) == []


def test_what_pip_complains_about_is_said(wheel: Path, home: Path) -> None:
    def offline(argv: Sequence[str], cwd: Path, env: Any, timeout: float) -> tuple[int, str, str]:
        return run_bounded(argv, cwd, {**env, "PIP_NO_INDEX": "1"}, timeout)

    message = str(refusal(wheel_spec(wheel, python=["nothing-like-this==1.0"]), home, run=offline))
    assert (
        "web: pip install failed" in message and "No matching distribution found for nothing-like-this==1.0" in message
    )
    assert released(home) == []


def test_a_missing_interpreter_is_named(wheel: Path, home: Path) -> None:
    spec = wheel_spec(wheel)
    spec["services"][0]["python_executable"] = "/no/such/python"
    assert "cannot run /no/such/python: No such file or directory" in str(refusal(spec, home))


def test_all_commands_share_one_time_budget(wheel: Path, home: Path) -> None:
    now = [0.0]
    budgets: list[float] = []

    def run(argv: Sequence[str], cwd: Path, env: Any, timeout: float) -> tuple[int, str, str]:
        budgets.append(timeout)
        now[0] += 70.0
        return (0, "", "") if len(budgets) == 1 else (1, "", "ERROR: enough")

    refusal(wheel_spec(wheel), home, run=run, monotonic=lambda: now[0], build_timeout_seconds=100)
    assert budgets == [100.0, 30.0]


def test_a_command_that_does_not_end_is_stopped_with_its_children(tmp_path: Path) -> None:
    script = "sleep 60 & echo $$ $! > pids; wait"
    with pytest.raises(RunbookError, match="build_timeout_seconds"):
        run_bounded(["/bin/sh", "-c", script], tmp_path, os.environ, 3.0)
    pids = (tmp_path / "pids").read_text().split()
    deadline = time.monotonic() + 30  # they are killed, but may take a moment to be gone
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(pids) == 2 and not any(map(is_running, pids))


def is_running(pid: str) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- listing and removing ---------------------------------------------------------------------------------------


def test_only_our_releases_are_listed_and_removed(spec: dict[str, Any], home: Path) -> None:
    for number, at in (("3", 300.0), ("1", 100.0), ("2", 200.0)):
        stage({**spec, "id": number}, home, clock=lambda at=at: at)  # type: ignore[misc]
    releases = home / "releases"
    (releases / "notes").mkdir()
    (releases / "current").symlink_to("3")
    (releases / ".9.0a1b2c3d").mkdir()
    (releases / "copy").mkdir()
    (releases / "copy" / "manifest.json").write_bytes((releases / "1" / "manifest.json").read_bytes())
    ours, foreign = manifests(home)
    assert [entry["id"] for entry in ours] == ["1", "2", "3"] and foreign == ["copy", "current", "notes"]
    assert ours[0] == {"id": "1", "version": "1.0", "digest": "d" * 64, "made_at": "1970-01-01T00:01:40Z"}
    everything = released(home)
    for ids, keep, message in (
        (["1", "2"], ["2"], "the release 2 is to be removed and to be kept"),
        (["1", "notes"], [], "is no release of ours"),
        (["1", "current"], [], "is no release of ours"),
        (["1", ".."], [], "'..' is no release id"),
        (["1", "../releases"], [], "is no release id"),
    ):
        with pytest.raises(RunbookError, match="nothing was removed") as caught:
            remove(home, ids, keep)
        assert message in str(caught.value) and released(home) == everything
    assert remove(home, ["1", "gone"], ["3"], check=True) == ["1"] and released(home) == everything
    assert remove(home, ["1", "2", "gone", "1"], ["3"]) == ["1", "2"]
    assert released(home) == ["3", "copy", "current", "notes"]
    assert remove(home, ["1"], []) == []


def test_a_release_disappears_before_its_files_do(
    spec: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(spec, home)

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_release.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(home, [spec["id"]])
    assert manifests(home) == ([], [])
    assert remove(home, []) == [] and released(home) == []


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    assert manifests(tmp_path) == ([], []) and remove(tmp_path, ["1"]) == []


def test_an_older_fencing_number_changes_nothing(home: Path) -> None:
    with changing(home, 5):
        pass
    for check in (False, True):
        with pytest.raises(RunbookError) as caught, changing(home, 4, check=check):
            raise AssertionError("entered")
        assert caught.value.details == {"fenced": True}
    with changing(home, 9, check=True):
        pass
    assert (home / "fence").read_text() == "5\n"


# --- for another user -------------------------------------------------------------------------------------------


def test_a_release_for_a_user_that_does_not_exist_is_refused(spec: dict[str, Any], home: Path) -> None:
    assert "there is no user nobody-like-this" in str(refusal(spec, home, user="nobody-like-this"))
    assert released(home) == []


def test_only_root_makes_a_release_for_another_user(
    spec: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_release.os, "geteuid", lambda: 4711)
    assert "only root can make a release for the user root" in str(refusal(spec, home, user="root"))
    assert released(home) == []


def test_only_what_is_private_belongs_to_the_user(
    spec: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, int] = {}
    user = pwd.getpwnam("nobody")
    monkeypatch.setattr(_release.os, "geteuid", lambda: 0)
    monkeypatch.setattr(_release.os, "chown", lambda path, uid, _gid, **_more: given.update({str(path): uid}))
    made = Path(stage(spec, home, user="nobody")["path"])
    names = {path.split("/web/", 1)[1]: uid for path, uid in given.items()}
    assert names == {"env": user.pw_uid, "app/conf/web.toml": user.pw_uid}
    # It was not really given away, so it is made for somebody else: made again, but not under a slot that runs it.
    assert stage(spec, home, user="nobody")["outcome"] == "rebuilt"
    refused = refusal({**spec, "in_use": [spec["id"]]}, home, user="nobody")
    assert "belongs to another user" in str(refused)
    assert verify(made) == []
