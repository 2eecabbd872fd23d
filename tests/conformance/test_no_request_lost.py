"""No request is lost, whatever moves the traffic: by our own account, and by clients that it knows nothing of."""

from __future__ import annotations

import pytest
from backends import Place
from clients import answers_of, clients, failed

AT_LEAST = 10_000
ROUNDS = 10
PATIENT = {"watch_interval_seconds": 0.5, "watch_p95_ms": 30_000}  # not a test of how fast the machine is
STRATEGIES = {
    "blue_green": {"watch_seconds": 9},
    "canary": {
        "app_strategy": "canary",
        "app_steps": [{"weight": 10}, {"weight": 50}, {"weight": 100}],
        "watch_seconds": 4,
    },
    "rolling": {"app_strategy": "rolling", "app_batch_watch_seconds": 2, "watch_seconds": 4},
}


@pytest.mark.requirement("DEP-08")
@pytest.mark.parametrize(
    ("strategy", "keep_alive"),
    [
        ("blue_green", "true"),
        ("blue_green", "false"),
        ("rolling", "true"),
        pytest.param("canary", "true", marks=pytest.mark.slow),
    ],
)
def test_ten_thousand_requests_through_deploys_and_rollbacks(place: Place, strategy: str, keep_alive: str) -> None:
    site, backend = place.site, place.backend
    if strategy not in backend.strategies:
        pytest.skip(f"{backend.name} has no {strategy}")
    if keep_alive not in backend.keep_alive:
        if strategy == "blue_green":
            pytest.skip("connections that are kept do not survive a shift here")
        keep_alive = "false"
    own = site.variables if strategy == site.variables.get("app_strategy") else {}  # its own steps
    given = {**STRATEGIES[strategy], **own, **PATIENT, **backend.load, "accounting_keep_alive": keep_alive}
    if site.live() is None:
        for version in ("1.0.0", "1.1.0"):
            site.release(version)
        first = site.deploy("1.0.0")
        assert first.code == 0, first.output
    old, new = ("1.0.0", "1.1.0") if site.live() == "1.0.0" else ("1.1.0", "1.0.0")
    runs = []
    with clients(site.front_url, 3 if keep_alive == "true" else 0, 0.02) as independent:
        for _time in range(ROUNDS):
            deployed = site.deploy(new, **given)
            restored = site.rollback(**{**given, "rollback_to": old})
            for play, outcome in ((deployed, "deployed"), (restored, "restored")):
                assert play.code == 0, play.output
                assert play.report and play.outcome == outcome
                runs.append(play.report["requests"])
            if sum(run["sent"] for run in runs) >= AT_LEAST:
                break
    print(backend.name, strategy, keep_alive, [{k: run[k] for k in ("sent", "failed", "by_version")} for run in runs])
    assert sum(run["sent"] for run in runs) >= AT_LEAST
    assert [run["failed"] for run in runs] == [0] * len(runs), [run["failures"] for run in runs]
    assert [run["connections_cut"] for run in runs] == [0] * len(runs)
    assert {version for run in runs for version in run["by_version"]} == {"1.0.0", "1.1.0"}
    assert failed(independent) == []
    assert {answer.version for answer in answers_of(independent)} in ({"1.0.0", "1.1.0"}, set())
