# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module journal on a real directory."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import Journal
from ansible_collections.signalbox.runbook.plugins.modules import journal, kubernetes_journal

HOLDER = {"user": "anna", "host": "ops1"}
PLAN = {"verb": "deploy", "to": {"release": "r1", "version": "1.3.0", "slot": "green"}}


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def run(capsys, directory):
    def run_module(module, check=False, **arguments):
        given = {"directory": str(directory), **arguments, "_ansible_check_mode": check}
        with patch_module_args(given), pytest.raises(SystemExit) as ended:
            module.main()
        result = json.loads(capsys.readouterr().out)
        assert ended.value.code == (1 if result.get("failed") else 0)
        result.pop("invocation", None)
        return result

    return run_module


def snapshot(directory):
    found = {}
    for where, _dirs, names in os.walk(directory):
        for name in names:
            with open(os.path.join(where, name), "rb") as stream:
                found[os.path.join(where, name)] = stream.read()
    return found


def opened(run, **more):
    arguments = {"holder": HOLDER, "reason": "deploy 1.3.0", "plan": PLAN, "ttl_seconds": 90}
    return run(journal, state="opened", **{**arguments, **more})


def test_a_run_through_all_its_states(run, directory):
    before = time.time()
    result = opened(run, events=[{"event": "intent", "step": "01-stage"}])
    assert (result["changed"], result["run"], result["fence"]) == (True, 1, 1)
    assert before <= result["at"] <= time.time()
    lease = Journal(directory).lease()
    assert (lease["holder"], lease["reason"]) == (HOLDER, "deploy 1.3.0")
    assert lease["expires"] == pytest.approx(lease["since"] + 90)

    own = {"run": 1, "fence": 1}
    written = run(journal, state="written", events=[{"event": "result", "ok": True}], **own)
    assert (written["changed"], written["run"], written["fence"]) == (True, 1, 1)
    renewed = run(journal, state="renewed", ttl_seconds=500, **own)
    assert renewed["changed"] is False
    assert Journal(directory).lease()["expires"] == pytest.approx(renewed["at"] + 500)
    assert [event["event"] for event in Journal(directory).events(1)] == ["open", "intent", "result"]

    record = {"verb": "deploy", "from": None, "to": PLAN["to"], "outcome": "deployed"}
    closed = run(journal, state="closed", events=[{"event": "end"}], record=record, **own)
    assert closed["changed"] is True
    assert Journal(directory).lease() is None
    assert Journal(directory).history()[0]["outcome"] == "deployed"


def test_the_next_run_settles_and_takes_over(run, directory):
    opened(run)
    settled = [{"run": 1, "verb": "deploy", "to": PLAN["to"], "outcome": "interrupted"}]
    result = opened(run, basis=1, dead_fence=1, settled=settled)
    assert (result["run"], result["fence"]) == (2, 2)
    assert [(r["run"], r["settled_by"]) for r in Journal(directory).history()] == [(1, 2)]


def test_a_held_lease_fails_and_names_its_holder(run):
    opened(run)
    result = opened(run, basis=1)
    assert result["failed"] is True
    assert result["msg"].startswith("run 1 of anna@ops1 holds the lease since ")
    assert result["lease"]["holder"] == HOLDER
    assert "rc" not in result


def test_a_stale_plan_fails(run):
    opened(run)
    run(journal, state="closed", run=1, fence=1, record={"outcome": "failed"})
    result = opened(run, basis=0)
    assert (result["failed"], result["stale"]) == (True, True)


@pytest.mark.parametrize("state", ["written", "renewed", "closed"])
def test_a_run_that_was_taken_over_fails(run, directory, state):
    opened(run)
    opened(run, basis=1, dead_fence=1)
    before = snapshot(directory)
    result = run(journal, state=state, run=1, fence=1, events=[{"event": "x"}], record={"outcome": "deployed"})
    assert (result["failed"], result["fenced"]) == (True, True)
    assert result["msg"].startswith("run 1 (fencing number 1) no longer holds the lease: run 2 ")
    assert snapshot(directory) == before


@pytest.mark.parametrize("state", ["written", "renewed", "closed"])
def test_a_journal_that_is_gone_fails_and_is_not_begun_anew(run, directory, state):
    opened(run)
    shutil.rmtree(directory)
    result = run(journal, state=state, run=1, fence=1)
    assert result["failed"] is True
    assert f"the journal in {directory} is gone" in result["msg"]
    assert not directory.exists()


def test_a_journal_that_can_not_be_read_fails(run, directory):
    opened(run)
    (directory / "history.jsonl").write_text("not ours\n")
    result = run(journal, state="read")
    assert result["failed"] is True
    assert result["msg"].startswith(f"the journal in {directory} cannot be read: ")


@pytest.mark.parametrize("state", ["opened", "written", "renewed", "closed"])
def test_check_mode_writes_nothing(run, directory, state):
    result = run(journal, check=True, state=state)
    assert (result["changed"], result["run"], result["fence"]) == (True, 0, 0)
    assert not directory.exists()
    opened(run)
    before = snapshot(directory)
    run(journal, check=True, state=state, run=1, fence=1, events=[{"event": "x"}], record={"outcome": "deployed"})
    assert snapshot(directory) == before


def test_info_of_nothing(run, directory):
    for check in (False, True):
        result = run(journal, state="read", check=check)
        assert result["changed"] is False
        assert (result["lease"], result["fence"], result["history"], result["unfinished"]) == (None, 0, [], [])
    assert not directory.exists()


def test_info_of_a_run_and_of_its_record(run):
    opened(run)
    result = run(journal, state="read")
    assert result["changed"] is False
    assert (result["lease"]["run"], result["lease"]["expired"], result["fence"]) == (1, False, 1)
    assert result["unfinished"] == [
        {"run": 1, "events": [{"event": "open", "run": 1, "fence": 1, "plan": PLAN, "at": result["lease"]["since"]}]}
    ]
    run(journal, state="closed", run=1, fence=1, record={"verb": "deploy", "outcome": "deployed", "reason": "x"})
    result = run(journal, state="read", wait_seconds=5)
    assert (result["lease"], result["unfinished"]) == (None, [])
    assert result["history"][0]["reason"] == "x"
    brief = {"run", "verb", "from", "to", "outcome", "ended"}
    assert set(run(journal, state="read", recent=0)["history"][0]) == brief


def test_info_waits_for_a_lease_that_ends(run):
    opened(run, ttl_seconds=0.2)
    assert run(journal, state="read", wait_seconds=30)["lease"]["expired"] is True


@pytest.mark.parametrize("arguments", [{}, {"state": "taken"}, {"state": "opened", "basis": "x"}])
def test_wrong_arguments_fail_before_anything_is_written(run, directory, arguments):
    assert run(journal, **arguments)["failed"] is True
    assert not directory.exists()


NAMESPACE = {"context": "nowhere", "namespace": "shop", "application": "demo", "environment": "production"}


def test_a_namespace_that_can_not_be_reached_is_one_sentence(capsys):
    given = {"state": "read", **NAMESPACE, "kubectl": ["no-kubectl"]}
    with patch_module_args(given), pytest.raises(SystemExit):
        kubernetes_journal.main()
    assert "kubectl: 'no-kubectl' cannot be run on this host" in json.loads(capsys.readouterr().out)["msg"]


@pytest.mark.parametrize("module", [journal, kubernetes_journal])
def test_documentation_fits(module):
    """Sanity tests see that the options of the documentation and its fragments are just these."""
    name = module.__name__.rpartition(".")[2]
    assert yaml.safe_load(module.DOCUMENTATION)["version_added"] == "0.1.0"
    assert yaml.safe_load(module.RETURN)
    for task in yaml.safe_load(module.EXAMPLES):
        assert set(task[f"signalbox.runbook.{name}"]) <= set(module.ARGUMENTS)
