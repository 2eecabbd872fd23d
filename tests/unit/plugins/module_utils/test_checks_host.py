"""Checks of the host: on this machine, and on the same with numbers that it does not have."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import Result, ask, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems

WORLD = World()


def asked(world: World = WORLD, **given: Any) -> Result:
    problems = Problems()
    checks = parse([{"name": "it", **given}], "checks", problems)
    assert not problems, problems
    return ask(checks[0], world)


def reading(**files: str) -> World:
    """The world in which these files of /proc say something else."""

    def read(path: str, limit: int) -> bytes:
        return files[path.rpartition("/")[2]].encode() if path.rpartition("/")[2] in files else WORLD.read(path, limit)

    return dataclasses.replace(WORLD, read=read)


# Disk


@pytest.mark.requirement("PRE-26")
def test_disk_says_what_df_says(tmp_path: Path) -> None:
    result = asked(check="disk", path=str(tmp_path))
    out = subprocess.run(
        ["df", "-B1", "--output=pcent,avail,ipcent", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.split("\n")[1]
    used, free, inodes = out.replace("%", "").split()
    assert abs(result.measured["free_percent"] - (100 - int(used))) <= 1.5
    assert abs(result.measured["free_bytes"] - int(free)) < 2**30
    assert inodes == "-" or abs(result.measured["free_inodes_percent"] - (100 - int(inodes))) <= 1.5
    assert result.limit.startswith("free_percent <= 20") and result.source == "default of check disk"


def volume(blocks: int, free: int, available: int, files: int = 100, free_files: int = 50) -> World:
    found = os.statvfs_result((4096, 4096, blocks, free, available, files, free_files, free_files, 0, 255))
    return dataclasses.replace(WORLD, statvfs=lambda _path: found)


@pytest.mark.requirement("PRE-26")
@pytest.mark.parametrize(
    ("world", "status", "free"),
    [
        (volume(1000, 500, 500), "pass", 50.0),
        (volume(1000, 250, 200), "pass", 100 * 200 / 950),  # 50 are kept for root
        (volume(1000, 200, 200), "fail", 20.0),  # more than 20 % are asked for
        (volume(1000, 0, 0), "fail", 0.0),
        (volume(1000, 500, 500, files=0, free_files=0), "pass", 50.0),  # btrfs counts none
        (volume(1000, 500, 500, files=100, free_files=5), "fail", 50.0),
    ],
)
def test_disk_is_full_at_the_limit(world: World, status: str, free: float) -> None:
    result = asked(world, check="disk")
    assert (result.status, round(result.measured["free_percent"], 6)) == (status, round(free, 6)), result.text


def test_a_disk_that_is_not_there_or_has_no_size_is_missing() -> None:
    assert asked(check="disk", path="/nowhere/at/all").status == "missing"
    assert asked(check="disk", path="/proc").status == "missing"


# Memory and processor


@pytest.mark.requirement("PRE-27")
def test_memory_and_processor_of_this_machine_are_between_their_bounds() -> None:
    memory = asked(check="memory")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.measured["available_bytes"] < total
    assert 0 < memory.measured["used_percent"] < 100
    cpu = asked(check="cpu", sample_seconds=0.2)
    assert 0 <= cpu.measured["used_percent"] <= 100 and cpu.measured["load_per_cpu"] >= 0


MEMORY = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: {available} kB\nSwapTotal: 200 kB\nSwapFree: 50 kB\n"


@pytest.mark.requirement("PRE-27")
@pytest.mark.parametrize(("available", "status"), [(301, "pass"), (300, "fail"), (0, "fail")])
def test_memory_counts_what_is_available_and_not_what_is_free(available: int, status: str) -> None:
    result = asked(reading(meminfo=MEMORY.format(available=available)), check="memory")
    assert result.status == status, result.text
    assert result.measured["available_bytes"] == available * 1024
    assert result.measured["swap_used_percent"] == 75


def test_capacity_for_a_second_release_is_a_limit_of_what_is_available() -> None:
    """600 kB are what the second colour needs."""
    limits = {"used_percent": None, "available_bytes": "< 614400"}
    for available, status in ((600, "pass"), (599, "fail")):
        world = reading(meminfo=MEMORY.format(available=available))
        assert asked(world, check="memory", fail_when=limits).status == status


@pytest.mark.requirement("PRE-27")
@pytest.mark.parametrize(("busy", "status"), [(69, "pass"), (70, "fail"), (100, "fail")])
def test_processors_are_sampled(busy: int, status: str) -> None:
    said = ["cpu  100 0 100 800 0 0 0 0 50 0\n", f"cpu  {100 + busy} 0 100 {900 - busy} 0 0 0 0 99 0\n"]
    slept: list[float] = []
    world = dataclasses.replace(
        WORLD,
        read=lambda path, _limit: (said[len(slept)] if path.endswith("stat") else "3.0 2.0 1.0 1/2 3").encode(),
        sleep=slept.append,
        cpus=lambda: 2,
    )
    result = asked(world, check="cpu", sample_seconds=2)
    assert (result.status, result.measured) == (status, {"used_percent": busy, "load_per_cpu": 1.5})
    assert slept == [2]


def test_a_proc_that_says_nothing_is_missing() -> None:
    assert asked(reading(meminfo="x"), check="memory").status == "missing"
    assert asked(reading(stat="x"), check="cpu", sample_seconds=0.1).status == "missing"
    frozen = "cpu  1 1 1 1 1 1 1 1\n"
    assert asked(reading(stat=frozen), check="cpu", sample_seconds=0.1).status == "missing"


# Files and settings


def test_file_is_there_young_large_and_private_enough(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    assert asked(check="file", path=str(path)).text == f"{path}: there is no such file (exists 0 < 1)"
    path.write_bytes(b"x" * 2048)
    path.chmod(0o644)
    os.utime(path, (WORLD.now() - 2 * 3600, WORLD.now() - 2 * 3600))
    assert asked(check="file", path=str(path)).status == "pass"
    assert asked(check="file", path=str(path), fail_when={"age_hours": "> 1"}).status == "fail"
    assert asked(check="file", path=str(path), fail_when={"size_bytes": "< 2049"}).status == "fail"
    result = asked(check="file", path=str(path), fail_when={"readable_by_others": "> 0"})
    assert "everybody can read it (mode 0644)" in result.text
    path.chmod(0o600)
    assert asked(check="file", path=str(path), fail_when={"readable_by_others": "> 0"}).status == "pass"


ENV = """\
# comment
export DATABASE_URL='postgresql://app:hush@db/app'
REDIS_URL="redis://:hush@cache/0"
EMPTY=
SPACES='  '
LATER=changeme
TEMPLATE=<your password>
SHELL_STYLE=${SECRET}
JINJA={{ secret }}
MINE=your-api-key-here
STARS=********
NOT_ONE=change-management
"""


@pytest.mark.parametrize(
    ("required", "measured", "words"),
    [
        (["DATABASE_URL", "REDIS_URL", "NOT_ONE"], (0, 0, 0), "missing keys 0"),
        (["DATABASE_URL", "SMTP_URL", "S3_KEY"], (2, 0, 0), "missing keys: SMTP_URL, S3_KEY"),
        (["EMPTY", "SPACES"], (0, 2, 0), "empty keys: EMPTY, SPACES"),
        (["LATER", "TEMPLATE", "SHELL_STYLE"], (0, 0, 3), "placeholder keys: LATER, TEMPLATE, SHELL_STYLE"),
        (["JINJA", "MINE", "STARS"], (0, 0, 3), "placeholder keys: JINJA, MINE, STARS"),
    ],
)
def test_environment_says_names_and_never_values(
    tmp_path: Path, required: list[str], measured: tuple[int, ...], words: str
) -> None:
    path = tmp_path / "env"
    path.write_text(ENV)
    result = asked(check="environment", path=str(path), required=required)
    names = ("missing_keys", "empty_keys", "placeholder_keys")
    assert tuple(result.measured[name] for name in names) == measured
    assert words in result.text and result.status == ("fail" if any(measured) else "pass")
    assert "hush" not in repr(result) and "changeme" not in repr(result)


def test_environment_of_the_process_when_no_file_is_named() -> None:
    world = dataclasses.replace(WORLD, environment={"A": "1"})
    assert asked(world, check="environment", required=["A"]).status == "pass"
    assert asked(world, check="environment", required=["B"]).status == "fail"


def test_what_is_no_ordinary_file_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "not an ordinary file"), (tmp_path / "gone", "No such file")):
        result = asked(check="environment", path=str(path), required=["A"])
        assert result.status == "missing" and words in result.text
    assert asked(check="environment", path=str(tmp_path), required=["A"]).status == "missing"


# Logs


@pytest.mark.requirement("HC-12")
def test_log_counts_the_bad_lines_among_the_last_ones(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    old = ["database connection error, long ago"] * 5
    path.write_text("\n".join(old + [f"line {i}" for i in range(100)]) + "\n")
    given: dict[str, Any] = {"check": "log", "path": str(path), "pattern": "(?i)database.*error"}
    assert asked(**given).status == "pass"
    with path.open("a") as stream:
        stream.write("Database connection error to postgresql://app:hush@db/app\nDATABASE ERROR ignored: retry\n")
    result = asked(**given, ignore="ignored")
    # A URL with a password is a secret in a log, and not shown again.
    assert result.measured["secret_lines"] == 1 and "hush" not in repr(result)
    with path.open("a") as stream:
        stream.write("Database connection error\n")
    result = asked(**given, ignore="ignored", fail_when={"secret_lines": None})
    assert (result.status, result.measured["matching_lines"], result.measured["lines"]) == ("fail", 1, 100)
    assert "1 of 100 lines match; the last one is 'Database connection error'" in result.text


@pytest.mark.requirement("HC-24")
@pytest.mark.parametrize(
    "line",
    [
        "key AKIAABCDEFGHIJKLMNOP used",
        "pushed with ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "connecting to postgresql://app:s3cr3tpw@db/app",
        "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3In0.dozjgNryP4J3jVmN",
        "-----BEGIN RSA PRIVATE KEY-----",
        'login {"password": "s3cr3tpw"}',
        "declared value is sesame-open here",
    ],
)
def test_a_secret_in_a_log_is_told_by_line_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "app.log"
    path.write_text(f"started\n{line}\nanswered\n")
    result = asked(check="log", path=str(path), secrets=["sesame-open"])
    assert result.status == "fail" and "the last ones are 2 of the 3 that were read" in result.text
    assert line not in repr(result) and "s3cr3tpw" not in repr(result) and "sesame" not in repr(result)


@pytest.mark.parametrize("part", ["a", "eyJ", "-eyJ", "a+://:", "SG.", "password ", "-----BEGIN ", "x@", "token="])
def test_a_line_without_end_takes_no_time_without_end(tmp_path: Path, part: str) -> None:
    path = tmp_path / "app.log"
    path.write_text(part * (3_000_000 // len(part)))
    result = asked(check="log", path=str(path), pattern="a|J|S|p|B|x|t", secrets=["sesame"])
    assert result.measured["lines"] == 1 and len(result.text) < 500


def test_what_only_speaks_of_secrets_is_none(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("password changed\npassword: ******\nGET /api?token= 200\nsecret rotated by bo\nhttp://host/path\n")
    assert asked(check="log", path=str(path)).measured["secret_lines"] == 0


@pytest.mark.requirement("HC-24")
def test_a_log_is_read_from_where_the_deploy_began_and_anew_when_it_was_rotated(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("error before\n" * 3)
    before = path.stat().st_size
    given: dict[str, Any] = {"check": "log", "path": str(path), "pattern": "error", "from_byte": before}
    assert (asked(**given).status, asked(**given).measured["lines"]) == ("pass", 0)
    with path.open("a") as stream:
        stream.write("fine\n" * 500 + "error after\n" + "fine\n" * 500)
    result = asked(**given)
    assert (result.measured["lines"], result.measured["matching_lines"]) == (1001, 1)
    path.write_text("error\n")
    assert asked(**given).measured["matching_lines"] == 1


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("error " * 1000 + "\n" + "fine\n" * 100)
    result = asked(check="log", path=str(path), pattern="error", max_bytes=200, last_lines=1000)
    assert (result.status, result.measured["lines"]) == ("pass", 40)
    assert asked(check="log", path=str(path), pattern="error", last_lines=1000).status == "fail"
    assert asked(check="log", path=str(tmp_path / "gone"), pattern="error").status == "missing"


# Commands and units


def test_command_by_its_exit_code_its_time_and_its_last_lines() -> None:
    result = asked(check="command", argv=[sys.executable, "-c", "print('one'); print('two')"])
    assert (result.status, result.measured["exit_code"]) == ("pass", 0)
    assert result.measured["last_lines"] == ["one", "two"]
    result = asked(check="command", argv=["sh", "-c", "echo failing >&2; exit 3"])
    assert result.status == "fail" and "exit code 3: failing (exit code 3 != 0)" in result.text
    late = asked(check="command", argv=["sleep", "60"], timeout_seconds=0.2)
    assert late.status == "missing" and "sleep did not end within 0.2 s" in late.text
    assert asked(check="command", argv=["/nowhere/at/all"]).status == "missing"


def test_command_has_no_shell_and_its_secrets_are_hidden(tmp_path: Path) -> None:
    result = asked(check="command", argv=["echo", "$HOME", "*"])
    assert result.measured["last_lines"] == ["$HOME *"]
    result = asked(
        check="command", argv=["sh", "-c", "pwd; echo $TOKEN"], chdir=str(tmp_path), environment={"TOKEN": "hush"}
    )
    assert result.measured["last_lines"] == [str(tmp_path), "(hidden)"]


def test_processes_by_their_command_line(tmp_path: Path) -> None:
    mark = f"queue-{os.getpid()}"
    pattern = f"worker {mark} [0-9]$"
    assert asked(check="process", pattern=pattern).text == (
        f"process {pattern!r}: no process has such a command line (processes 0 < 1)"
    )
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, "worker", mark]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen([*command, str(i)], stdin=pipe, stdout=pipe) for i in range(3)]
    try:
        for worker in workers:
            assert worker.stdout and worker.stdout.readline() == b"\n"
        result = asked(check="process", pattern=pattern, fail_when={"processes": "!= 3"})
        assert result.status == "pass", result.text
        assert 0 <= result.measured["youngest_seconds"] <= result.measured["oldest_seconds"] < 600
        assert 3e6 < result.measured["resident_bytes"] < 3e8
        workers[0].kill()
        workers[0].wait()
        assert asked(check="process", pattern=pattern, fail_when={"processes": "< 3"}).status == "fail"
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


SHOWN = "LoadState={load}\nActiveState={active}\nSubState={sub}\nNRestarts=3\nActiveEnterTimestampMonotonic=40000000\n"


@pytest.mark.parametrize(
    ("load", "active", "sub", "status", "words"),
    [
        ("loaded", "active", "running", "pass", "active 1"),
        ("loaded", "failed", "failed", "fail", "it is failed (failed)"),
        ("loaded", "activating", "auto-restart", "fail", "it is activating (auto-restart)"),
        ("not-found", "inactive", "dead", "fail", "it is not-found"),
    ],
)
def test_unit_by_what_systemctl_show_says(load: str, active: str, sub: str, status: str, words: str) -> None:
    said = SHOWN.format(load=load, active=active, sub=sub)
    world = dataclasses.replace(
        reading(uptime="100.5 1.0"), run=lambda argv, *_more: (0, said, "") if argv[0] == "systemctl" else (1, "", "")
    )
    result = asked(world, check="unit", unit="app.service")
    assert result.status == status and words in result.text
    if status == "pass":
        assert (result.measured["restarts"], result.measured["up_seconds"]) == (3, 60.5)
    down = dataclasses.replace(world, run=lambda *_more: (1, "", "Failed to connect to bus"))
    assert asked(down, check="unit", unit="app.service").status == "missing"


# Names and ports


def names(*addresses: str, error: int = 0) -> World:
    def look_up(_host: str, _port: int, _seconds: float) -> list[tuple[Any, ...]]:
        if error:
            raise socket.gaierror(error, "no")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    return dataclasses.replace(WORLD, addresses=look_up)


@pytest.mark.parametrize(
    ("world", "wanted", "status", "words"),
    [
        (names("192.0.2.1"), [], "pass", "resolved addresses 1"),
        (names(error=socket.EAI_NONAME), [], "fail", "the name does not resolve"),
        (names(error=socket.EAI_AGAIN), [], "missing", "can't be looked up"),
        (names("192.0.2.1", "192.0.2.2"), ["192.0.2.1"], "pass", "missing addresses 0"),
        (names("192.0.2.2"), ["192.0.2.1"], "fail", "it does not resolve to 192.0.2.1, but to 192.0.2.2"),
        (names("2001:db8::1"), ["2001:0db8:0::1"], "pass", "missing addresses 0"),
    ],
)
def test_names_resolve_to_what_is_expected(world: World, wanted: list[str], status: str, words: str) -> None:
    result = asked(world, check="dns", host="app.test", addresses=wanted)
    assert result.status == status and words in result.text


def test_addresses_that_nobody_expects_are_counted() -> None:
    limits = {"unexpected_addresses": "> 0"}
    result = asked(names("192.0.2.1", "192.0.2.9"), check="dns", host="h", addresses=["192.0.2.1"], fail_when=limits)
    assert result.status == "fail" and "it resolves to 192.0.2.9 too" in result.text


def test_a_port_accepts_or_not() -> None:
    assert asked(check="dns", host="localhost").status == "pass"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        refused = asked(check="tcp", port=port)
        assert (refused.status, refused.text) == ("fail", f"127.0.0.1:{port}: connection refused (connected 0 < 1)")
        listening.listen()
        assert asked(check="tcp", port=port).status == "pass"
