"""Gates before a deploy: asked on real hosts, attested by people, decided at once; blocked, waived and confirmed."""

from __future__ import annotations

import getpass
import json
import os
import pty
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_site import Site, make_site

QUICK = {"watch_seconds": 0, "accounting_requests_per_second": 0}
PLAN = {"name": "rollback plan", "check": "attestation", "statement": "the rollback plan is written down"}
FULL = {"name": "disk", "check": "disk", "path": "/", "fail_when": {"free_percent": "< 101"}}
ROOMY = {"name": "disk", "check": "disk", "path": "/", "fail_when": {"free_percent": "< 0.1"}, "warn_when": {}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for made in make_site(tmp_path_factory.mktemp("gates"), 2):
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            made.release(version)
        first = made.deploy("1.0.0", **QUICK)
        assert first.code == 0, first.output
        yield made


def untouched(site: Site, version: str) -> None:
    assert site.answers() == {version} and site.live() == version
    assert [slot for target in site.slots().values() for slot in target.values() if slot not in ("", version)] == []


@pytest.mark.requirement("PRE-01", "PRE-26", "PRE-53")
def test_a_deploy_is_blocked_by_all_that_does_not_hold_at_once(site: Site) -> None:
    dns = {"name": "dns", "check": "dns", "host": "localhost"}
    blocked = site.deploy("1.1.0", **QUICK, app_gates=[FULL, PLAN, dns])
    assert blocked.code != 0 and blocked.outcome == "blocked", blocked.output
    assert "BLOCK, 2 of 3 gates do not hold" in blocked.output
    assert "FAILED   disk" in blocked.output and "MISSING  rollback plan" in blocked.output
    assert "attest.yml -e app_version=1.1.0 -e 'attest_gate=rollback plan'" in blocked.output
    assert "BLOCKED after" in blocked.output and "nothing has been touched" in blocked.output
    record = site.history()[-1]
    assert record["outcome"] == "blocked" and record["decision"]["decision"] == "BLOCK"
    statuses = {gate["name"]: gate["status"] for gate in record["decision"]["gates"]}
    assert statuses == {"disk": "fail", "rollback plan": "missing", "dns": "pass"}
    untouched(site, "1.0.0")
    assert site.lease() == "" or json.loads(site.lease())["released"]


def test_what_is_live_already_asks_no_gates(site: Site) -> None:
    same = site.deploy("1.0.0", **QUICK, app_gates=[FULL])
    assert same.code == 0 and "nothing to do" in same.output, same.output


def test_check_says_what_does_not_hold_and_changes_nothing(site: Site) -> None:
    before = site.everything()
    predicted = site.deploy("1.1.0", "--check", **QUICK, app_gates=[PLAN])
    assert predicted.code == 0, predicted.output
    assert "gate rollback plan: nobody has attested: the rollback plan is written down" in predicted.output
    assert site.everything() == before


@pytest.mark.requirement("PRE-02", "PRE-12")
def test_preflight_asks_the_gates_of_a_phase_and_changes_nothing(site: Site) -> None:
    gates = [{**ROOMY, "phases": ["day", "deploy"]}, {**PLAN, "phases": ["week"]}]
    before = site.everything()
    week = site.run("preflight", app_version="1.1.0", preflight_phase="week", app_gates=gates)
    assert week.code != 0, week.output
    assert "BLOCK   score 0 %   1 missing" in week.output and "disk" not in week.output
    day = site.run("preflight", app_version="1.1.0", preflight_phase="day", app_gates=gates)
    assert day.code == 0, day.output
    assert "PROCEED   score 100 %   1 passed" in day.output and "plan" not in day.output
    assert site.everything() == before
    wrong = site.run("preflight", app_version="1.1.0", preflight_phase="month", app_gates=gates)
    assert wrong.code != 0
    assert (
        "preflight_phase: must be one of week, day, hour, deploy, verify, not 'month'. Nothing has been" in wrong.output
    )


def test_a_host_that_can_not_be_asked_is_named_and_never_a_pass(site: Site) -> None:
    lost = site.inventory / "host_vars" / "target2"
    lost.mkdir(parents=True)
    way = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    (lost / "lost.yml").write_text(json.dumps(way), encoding="utf-8")
    try:
        asked = site.run("preflight", app_version="1.1.0", app_gates=[ROOMY, {"name": "way back", "check": "rollback"}])
    finally:
        (lost / "lost.yml").unlink()
    assert asked.code != 0, asked.output
    assert "MISSING  disk" in asked.output and "target2: gave no answer: " in asked.output, asked.output
    assert "MISSING  way back  target2 is unreachable" in asked.output, asked.output


@pytest.mark.requirement("BLD-10")
def test_preflight_mends_what_has_a_remedy_and_a_deploy_never_does(site: Site, tmp_path: Path) -> None:
    made = tmp_path / "made"
    test = {"name": "quality", "check": "command", "argv": ["test", "-f", str(made)], "on": "controller"}
    gate = {**test, "on_failure": "remediate", "remedy": [{"argv": ["touch", str(made)]}]}
    blocked = site.deploy("1.1.0", **QUICK, app_gates=[gate])
    assert blocked.outcome == "blocked" and "REMEDIATE, 1 of 1 gates do not hold" in blocked.output, blocked.output
    asked = site.run("preflight", app_version="1.1.0", app_gates=[gate])
    assert asked.code != 0 and "REMEDIATE" in asked.output and not made.exists(), asked.output
    predicted = site.run("preflight", "--check", app_version="1.1.0", app_gates=[gate], preflight_mend=True)
    assert predicted.code != 0 and not made.exists(), predicted.output
    mended = site.run("preflight", app_version="1.1.0", app_gates=[gate], preflight_mend=True)
    assert mended.code == 0 and f"after touch {made} (before:" in mended.output, mended.output
    made.unlink()
    worse = {**gate, "remedy": [{"argv": ["sh", "-c", "echo no rule >&2; exit 3"]}]}
    failed = site.run("preflight", app_version="1.1.0", app_gates=[worse], preflight_mend=True)
    assert failed.code != 0 and "ended with 3: no rule" in failed.output, failed.output


@pytest.mark.requirement("HC-01")
def test_verify_asks_what_runs_and_writes_what_it_found(site: Site) -> None:
    url = f"{site.front_url}/health"
    healthy = {"name": "health", "check": "http", "url": url, "status": [200], "on": "controller", "phases": ["verify"]}
    gates = [healthy, {**ROOMY, "phases": ["verify"]}, FULL | {"name": "of a deploy"}]
    before = site.everything()
    well = site.run("verify", app_gates=gates)
    assert well.code == 0 and "PROCEED   score 100 %   2 passed" in well.output, well.output
    (path,) = site.reports.glob("*-verify.json")
    assert path.stat().st_mode & 0o077 == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [(gate["name"], gate["status"]) for gate in found["gates"]] == [("health", "pass"), ("disk", "pass")]
    assert found["gates"][0]["measured"]
    ill = site.run("verify", app_gates=[{**healthy, "status": [204]}])
    assert ill.code != 0 and "FAILED   health" in ill.output, ill.output
    assert site.everything() == before


@pytest.mark.requirement("PRE-12", "ENV-16")
def test_what_people_say_lets_it_go_on_and_is_kept(site: Site) -> None:
    me = getpass.getuser()
    gates = [PLAN, {"name": "approval", "check": "approval"}, ROOMY, {"name": "way back", "check": "rollback"}]
    said = site.run(
        "attest", app_version="1.1.0", attest_gate="rollback plan", attest_evidence="wiki/42", app_gates=gates
    )
    assert said.code == 0, said.output
    assert f"rollback plan attested by {me} for 1.1.0" in said.output
    own = site.run("attest", app_version="1.1.0", attest_gate="approval", app_gates=gates)
    assert own.code == 0, own.output
    blocked = site.deploy("1.1.0", **QUICK, app_gates=gates)
    assert blocked.outcome == "blocked", blocked.output
    assert f"0 of 1 approvals of 1.1.0, {me} not counted" in blocked.output
    other = {"awx_user_name": "bert"}  # as a job template gives it
    second = site.run("attest", app_version="1.1.0", attest_gate="approval", app_gates=gates, **other)
    assert second.code == 0 and "approval approved by bert for 1.1.0" in second.output, second.output
    done = site.deploy("1.1.0", **QUICK, app_gates=gates)
    assert done.code == 0 and done.outcome == "deployed", done.output
    record = site.history()[-1]
    texts = {gate["name"]: gate["text"] for gate in record["decision"]["gates"]}
    assert texts["approval"].startswith("approved by bert, ")
    assert "(wiki/42)" in texts["rollback plan"]
    assert texts["way back"] == "1.0.0 in blue stands on 2 of 2 targets"
    assert site.answers() == {"1.1.0"}
    assert "all agree" in site.status().output


def test_a_statement_does_not_get_in_the_way_of_a_rollback(site: Site) -> None:
    """A rollback asks no gates: it goes to what was verified before."""
    back = site.rollback(**QUICK, app_gates=[FULL])
    assert back.code == 0 and back.outcome == "restored", back.output
    assert site.answers() == {"1.0.0"}


@pytest.mark.requirement("PRE-01")
def test_a_waiver_is_for_one_version_with_a_reason(site: Site) -> None:
    given = {"attest_gate": "disk", "app_gates": [FULL], "app_version": "1.2.0"}
    without = site.run("attest", **given, attest_waive=True)
    assert without.code != 0
    assert "attest_reason: is missing; say why disk does not have to hold for 1.2.0. Nothing has been" in without.output
    waived = site.run("attest", **given, attest_waive=True, attest_reason="grows tonight")
    assert waived.code == 0, waived.output
    assert site.deploy("1.1.0", **QUICK, app_gates=[FULL]).outcome == "blocked"
    done = site.deploy("1.2.0", **QUICK, app_gates=[FULL])
    assert done.code == 0 and done.outcome == "deployed", done.output
    (gate,) = site.history()[-1]["decision"]["gates"]
    assert gate["status"] == "waived" and "grows tonight" in gate["text"]


@pytest.mark.requirement("ENV-01", "ENV-02", "BLD-14")
def test_a_release_goes_on_with_the_proof_of_the_environment_before(site: Site, tmp_path: Path) -> None:
    (proof,) = site.reports.glob("*-1.2.0.proof")
    gate = {"name": "staging", "check": "promotion", "from": "local", "proof": str(proof)}
    moved = site.run("preflight", app_version="1.2.0", app_gates=[gate])
    assert moved.code == 0 and "1.2.0 verified in local at " in moved.output, moved.output
    early = site.run("preflight", app_version="1.2.0", app_gates=[{**gate, "soak_minutes": 60}])
    assert early.code != 0 and "of 60 min ago" in early.output, early.output
    other = site.run("preflight", app_version="1.1.0", app_gates=[gate])
    assert other.code != 0 and "is of version 1.2.0, not 1.1.0" in other.output, other.output
    changed = tmp_path / "changed.proof"
    changed.write_text(proof.read_text(encoding="utf-8").replace('"1.2.0"', '"1.1.0"'), encoding="utf-8")
    forged = site.run("preflight", app_version="1.1.0", app_gates=[{**gate, "proof": str(changed)}])
    assert forged.code != 0 and "was changed after it was written" in forged.output, forged.output
    records = {key: value for key, value in gate.items() if key != "proof"} | {"journal": str(site.state)}
    kept = site.run("preflight", app_version="1.2.0", app_gates=[records])
    assert kept.code == 0 and "1.2.0 verified in local at " in kept.output, kept.output
    never = site.run("preflight", app_version="9.9.9", app_gates=[records])
    assert never.code != 0 and "9.9.9 was never verified there" in never.output, never.output


@pytest.mark.requirement("ENV-17")
def test_without_a_terminal_the_confirmation_is_a_variable(site: Site) -> None:
    before = site.everything()
    absent = site.deploy("1.1.0", **QUICK, app_confirm=True)
    assert absent.code != 0
    assert (
        "app_confirmed: is missing, and nobody is at a terminal to be asked; give -e app_confirmed=local"
        in absent.output
    )
    wrong = site.deploy("1.1.0", **QUICK, app_confirm=True, app_confirmed="yes")
    assert wrong.code != 0
    assert "app_confirmed: must be local, the environment that this run changes, not 'yes'" in wrong.output
    assert site.everything() == before
    said = site.deploy("1.1.0", **QUICK, app_confirm=True, app_confirmed="local")
    assert said.code == 0 and said.outcome == "deployed", said.output


def at_terminal(site: Site, typed: str, **variables: Any) -> tuple[int, str]:
    """A deploy by somebody who reads what is asked at a terminal, and types."""
    command = site.command("deploy", **variables)
    pid, master = pty.fork()
    if pid == 0:
        os.execve(command[0], command, site.environment())
    shown, ended, deadline = "", False, time.monotonic() + 120
    while not ended and time.monotonic() < deadline:
        ready, _w, _x = select.select([master], [], [], 1)
        if ready:
            try:
                shown += os.read(master, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                ended = True
        elif shown.rstrip().endswith("to decide):"):  # what is typed before Ansible listens is thrown away
            os.write(master, typed.encode() + b"\r")
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


@pytest.mark.requirement("ENV-17", "ENV-18")
def test_at_a_terminal_the_plan_is_shown_and_the_environment_is_typed(site: Site) -> None:
    code, shown = at_terminal(site, "production", app_version="1.2.0", app_confirm=True, **QUICK)
    assert code != 0, shown
    assert shown.index("1.1.0 -> 1.2.0") < shown.index("Type local to go on with it")
    assert "must be local" in shown and site.live() == "1.1.0"
    code, shown = at_terminal(site, "local", app_version="1.2.0", app_confirm=True, **QUICK)
    assert code == 0, shown
    assert shown.count("1.1.0 -> 1.2.0") == 1, "the plan is shown once"
    assert site.live() == "1.2.0" and site.answers() == {"1.2.0"}
