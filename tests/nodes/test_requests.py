"""Ten thousand requests to the router of real hosts, while releases go back and forth behind it."""

from __future__ import annotations

from node_site import NodeSite

LOAD = {"accounting_requests_per_second": 200, "accounting_keep_alive": "false"}
AT_LEAST = 10_000
ROUNDS = 6


def test_ten_thousand_requests_through_deploys_and_rollbacks(site: NodeSite) -> None:
    """Each on a new connection: nginx older than 1.27.4 cuts idle ones when it reloads, whatever is behind it."""
    site.release("1.0.0")
    site.release("1.1.0")
    first = site.deploy("1.0.0")
    assert first.code == 0, first.output
    runs = []
    for _time in range(ROUNDS):
        deployed = site.deploy("1.1.0", watch_seconds=15, watch_interval_seconds=1, **LOAD)
        restored = site.rollback(**LOAD)
        for play, outcome in ((deployed, "deployed"), (restored, "restored")):
            assert play.code == 0, play.output
            assert play.report and play.outcome == outcome
            runs.append(play.report["requests"])
        if sum(run["sent"] for run in runs) >= AT_LEAST:
            break
    print([{key: run[key] for key in ("sent", "failed", "by_version")} for run in runs])
    assert sum(run["sent"] for run in runs) >= AT_LEAST
    assert [run["failed"] for run in runs] == [0] * len(runs), [run["failures"] for run in runs]
    assert {version for run in runs for version in run["by_version"]} == {"1.0.0", "1.1.0"}
