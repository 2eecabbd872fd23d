"""watch.yml: what is live is watched beside any run, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

from runbook_site import Play, Site

WATCH = {
    "watch_seconds": 4,
    "watch_interval_seconds": 0.5,
    "watch_window_seconds": 3,
    "watch_p95_ms": 30_000,
    "accounting_requests_per_second": 50,
}


def watched(site: Site, **more: Any) -> tuple[Play, dict[str, Any]]:
    play = site.run("watch", **{**WATCH, **more})
    (path,) = site.reports.glob("*-watch.json")
    assert path.stat().st_mode & 0o077 == 0
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return play, found


def test_before_the_first_release_there_is_nothing_to_watch(small_site: Site) -> None:
    nothing = small_site.run("watch", **WATCH)
    assert nothing.code != 0
    assert "there is nothing to watch: no release of this application is live here" in nothing.output


def test_what_is_live_and_well_passes_and_nothing_is_changed(small_site: Site) -> None:
    small_site.release("1.0.0")
    first = small_site.deploy("1.0.0")
    assert first.code == 0, first.output
    before = small_site.everything()
    play, found = watched(small_site)
    assert play.code == 0, play.output
    assert "WATCHED: 1.0.0 in blue: errors 0.0 % (limit 10 %)" in play.output
    assert (found["outcome"], found["version"]) == ("passed", "1.0.0") and found["measurements"] > 2
    assert small_site.everything() == before
    assert small_site.strays() == []


def test_what_turns_bad_later_fails_by_name_and_is_not_taken_back(small_site: Site) -> None:
    """A deploy whose watch was too short; the way back is a decision of its own."""
    small_site.release("1.1.0", errors_percent=60, after_seconds=1)
    done = small_site.deploy("1.1.0", watch_seconds=0, accounting_requests_per_second=0)
    assert done.code == 0, done.output
    trigger = {"name": "too-many", "metric": "requests", "fail_when": {"error_percent": "> 30"}}
    play, found = watched(small_site, watch_seconds=60, watch_builtin=False, watch_triggers=[trigger])
    assert play.code != 0, play.output
    assert "WATCH FAILED: 1.1.0 in green" in play.output and "rollback.yml" in play.output
    assert found["outcome"] == "failed" and found["trigger"] == "too-many", found
    assert small_site.live() == "1.1.0" and [r["outcome"] for r in small_site.history()] == ["deployed"] * 2
    back = small_site.rollback()
    assert back.code == 0 and small_site.answers() == {"1.0.0"}


def test_another_run_meanwhile_leaves_it_without_a_word_on_either(small_site: Site) -> None:
    small_site.release("1.2.0")
    # Every request is answered, by one release or the other: nothing that is measured says that it moved.
    calm = {"name": "errors", "metric": "requests", "fail_when": {"error_percent": "> 90"}}
    known = {**WATCH, "watch_seconds": 25, "watch_builtin": False, "watch_triggers": [calm]}
    follow = small_site.start("watch", **known)
    assert follow.stdout and any("1.0.0 in blue for 25 s" in line for line in follow.stdout)
    done = small_site.deploy("1.2.0")
    assert done.code == 0, done.output
    output = follow.communicate(timeout=120)[0]
    assert "WATCHED" not in output, "what passed is not what was watched"
    assert follow.returncode != 0
    assert "INTERRUPTED: another run changes what is live, so nothing is said of 1.0.0" in output, output


def test_a_canary_of_which_nobody_knows_how_it_is_waits_for_a_person(small_site: Site) -> None:
    """Its share stays what it is: more would be a pass that nobody gave."""
    small_site.release("1.3.0")
    live = small_site.live()
    unclear = {"name": "busy", "metric": "requests", "warn_when": {"sent": "> 0"}}
    canary = {"app_strategy": "canary", "app_steps": [{"weight": 50}, {"weight": 100}]}
    play = small_site.deploy("1.3.0", **WATCH, **canary, watch_triggers=[unclear])
    assert play.code == 0 and play.outcome == "held", play.output
    assert "busy" in play.output and "promote.yml goes on, abort.yml takes it back" in play.output
    assert small_site.live() == live and small_site.answers(60) == {live, "1.3.0"}
    held = small_site.history()[-1]
    assert [step["weight"] for step in held["remaining"]] == [100]
    back = small_site.run("abort")
    assert back.code == 0 and small_site.answers(40) == {live}, back.output
