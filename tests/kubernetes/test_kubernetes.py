"""The life of an application in a namespace of a real cluster: upgrades, bad releases, rollbacks, killed runs."""

from __future__ import annotations

import base64
import json
import os
import re
import time

import pytest
from chaos import await_event, intends, kill_all, run_numbers
from kubernetes_site import HOST, Site
from load import Load


@pytest.fixture(scope="module", autouse=True)
def first(site: Site) -> None:
    site.release("1.0.0")
    site.release("1.1.0")


@pytest.mark.smoke
@pytest.mark.requirement("BG-07")
def test_first_release_then_an_upgrade(site: Site) -> None:
    deployed = site.deploy("1.0.0", watch_seconds=2, watch_interval_seconds=0.5)
    assert deployed.code == 0, deployed.output
    assert site.answers() == {"1.0.0"} and site.slots() == {"blue": "1.0.0"}
    upgraded = site.deploy("1.1.0", watch_seconds=2, watch_interval_seconds=0.5)
    assert upgraded.code == 0, upgraded.output
    assert upgraded.outcome == "deployed"
    assert site.answers() == {"1.1.0"}
    assert site.slots() == {"blue": "1.0.0", "green": "1.1.0"}
    assert site.selector()["signalbox.runbook/slot"] == "green"
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed"]
    assert [phase["phase"] for phase in site.history()[-1]["phases"]] == ["stage", "start", "shift", "watch", "verify"]


def test_configuration_is_part_of_a_release_and_secrets_stay_secret(site: Site) -> None:
    pod = next(p for p in site.objects("pods") if p["metadata"]["labels"]["signalbox.runbook/slot"] == "green")
    name = pod["metadata"]["name"]
    said = site.kubectl(
        "exec", name, "--", "sh", "-c", 'echo "$GREETING $API_TOKEN"; cat /etc/app/conf/settings.ini', namespaced=True
    )
    assert said.split() == ["hello", "not-to-be-seen-1.1.0", "version=1.1.0"]
    deployments = site.kubectl("get", "deployments,configmaps", "-o", "yaml", namespaced=True)
    assert "hello" in deployments and "not-to-be-seen" not in deployments
    for path in [*site.state.rglob("*"), *site.reports.rglob("*")]:
        assert path.is_dir() or b"not-to-be-seen" not in path.read_bytes(), path


@pytest.mark.requirement("DEP-06", "DEP-11")
@pytest.mark.parametrize(
    ("version", "faults", "said"),
    [
        ("1.2.0", {"never_ready": True}, "statuscode: 503"),
        ("1.2.3", None, "ErrImageNeverPull"),
    ],
)
def test_bad_release_takes_no_traffic_and_says_why(
    site: Site, version: str, faults: dict[str, object] | None, said: str
) -> None:
    if faults is not None:
        site.release(version, **faults)
    bad = site.deploy(version, runtime_kubernetes_image_pull_policy="Never")
    assert bad.code != 0
    assert bad.outcome == "failed", bad.output
    assert said in bad.output, bad.output
    assert "not-to-be-seen" not in bad.output
    assert site.answers() == {"1.1.0"}
    assert site.slots() == {"green": "1.1.0"}  # the failed slot is stopped


def test_quota_that_is_exceeded_is_named_in_the_words_of_the_cluster(site: Site) -> None:
    site.kubectl("create", "quota", "small", "--hard=pods=3", namespaced=True)
    try:
        bad = site.deploy("1.0.0")
    finally:
        site.kubectl("delete", "quota", "small", namespaced=True)
    assert bad.code != 0 and bad.outcome == "failed", bad.output
    assert "exceeded quota: small" in bad.output
    assert site.answers() == {"1.1.0"}


@pytest.mark.requirement("DEP-08", "BG-09")
def test_no_request_fails_in_an_upgrade_and_a_rollback(site: Site) -> None:
    with Load(site.front_url + "/", rate=100, count=10_000) as load:
        upgraded = site.deploy("1.0.0", accounting_requests_per_second=0)
        assert upgraded.code == 0, upgraded.output
        back = site.rollback(accounting_requests_per_second=0)
        assert back.code == 0, back.output
        assert back.outcome == "restored"
    assert load.sent >= 10_000
    assert load.failures == []
    assert set(load.versions) == {"1.0.0", "1.1.0"}
    assert site.answers() == {"1.1.0"} and site.live() == "1.1.0"


def test_rollback_starts_a_slot_that_is_gone_from_what_is_in_the_namespace(site: Site) -> None:
    site.kubectl("delete", "deployment", "demo-backend-blue", namespaced=True)
    back = site.rollback(rollback_to="1.0.0")
    assert back.code == 0, back.output
    assert site.answers() == {"1.0.0"}
    forward = site.rollback(rollback_to="1.1.0")
    assert forward.code == 0, forward.output
    assert site.answers() == {"1.1.0"}


@pytest.mark.requirement("BG-11")
def test_selector_that_somebody_moved_stops_the_run_before_anything(site: Site) -> None:
    chosen = site.selector()
    site.kubectl(
        "patch",
        "service",
        "demo-backend",
        "-p",
        '{"spec":{"selector":{"signalbox.runbook/slot":"blue"}}}',
        namespaced=True,
    )
    before = site.everything()
    try:
        stopped = site.deploy("1.2.0")
        assert stopped.code != 0
        assert f"{HOST} sends blue 100 % instead of green 100 %" in stopped.output
        assert site.everything() == before
    finally:
        slot = chosen["signalbox.runbook/slot"]
        site.kubectl(
            "patch",
            "service",
            "demo-backend",
            "-p",
            f'{{"spec":{{"selector":{{"signalbox.runbook/slot":"{slot}"}}}}}}',
            namespaced=True,
        )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"runtime_kubernetes_context": "elsewhere"}, "has no context 'elsewhere'"),
        ({"runtime_kubernetes_context": ""}, "runtime_kubernetes_context: is missing"),
        ({"runtime_kubernetes_namespace": "not-there"}, "not-there does not exist in https://"),
        (
            {"runtime_kubernetes_expected_server": "https://prod.example.com:6443"},
            "not to https://prod.example.com:6443",
        ),
        ({"runtime_kubernetes_kubectl": ["no-kubectl"]}, "'no-kubectl' cannot be run on this host"),
        ({"app_steps": [{"weight": 10}, {"weight": 100}]}, "10 % of 2 replicas of backend can't be"),
        ({"app_strategy": "rolling"}, "use blue_green or canary"),
        ({"app_router": "nginx"}, "kubernetes goes with kubernetes only"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_touched(site: Site, variables: dict[str, object], said: str) -> None:
    before = site.everything()
    refused = site.deploy("1.2.0", **variables)
    assert refused.code != 0
    assert said in refused.output and "othing has been touched" in refused.output, refused.output
    assert site.everything() == before


def test_manifest_that_the_cluster_refuses_is_named_with_its_field(site: Site) -> None:
    before = {k: v for k, v in site.everything().items() if "demo-runbook" not in k}
    own = {"spec": {"template": {"spec": {"containers": [{"name": "backend", "imagePullPolicy": "Sometimes"}]}}}}
    refused = site.deploy("1.2.0", runtime_kubernetes_services={"backend": {"deployment": own}})
    assert refused.code != 0
    assert "runtime_kubernetes_services.backend.deployment" in refused.output
    assert "spec.template.spec.containers[0].imagePullPolicy" in refused.output
    assert {k: v for k, v in site.everything().items() if "demo-runbook" not in k} == before


def test_user_who_may_not_is_told_what(site: Site) -> None:
    site.kubectl("create", "serviceaccount", "weak", namespaced=True)
    token = ""
    for _try in range(50):
        secrets = site.json("get", "serviceaccount", "weak", namespaced=True).get("secrets") or []
        if secrets:
            encoded = site.json("get", "secret", secrets[0]["name"], namespaced=True)["data"]["token"]
            token = base64.b64decode(encoded).decode()
            break
        time.sleep(0.2)
    else:
        pytest.skip("this cluster makes no token Secret for a service account")
    config = site.json("config", "view", "--raw")
    config["users"] = [{"name": "weak", "user": {"token": token}}]
    config["contexts"] = [{"name": "weak", "context": {"cluster": config["clusters"][0]["name"], "user": "weak"}}]
    path = site.directory / "weak"
    path.write_text(json.dumps(config), encoding="utf-8")
    refused = site.deploy("1.2.0", runtime_kubernetes_kubeconfig=str(path), runtime_kubernetes_context="weak")
    assert refused.code != 0
    assert re.search(r'cannot (list|get) resource "configmaps"', refused.output), refused.output
    assert "othing has been touched" in refused.output


def test_cluster_that_is_not_there_is_named(site: Site) -> None:
    config = site.json("config", "view", "--raw")
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path = site.directory / "nowhere"
    path.write_text(json.dumps(config), encoding="utf-8")
    refused = site.deploy("1.2.0", runtime_kubernetes_kubeconfig=str(path), runtime_kubernetes_expected_server="")
    assert refused.code != 0
    assert "https://127.0.0.1:9" in refused.output and "connection refused" in refused.output
    assert "othing has been touched" in refused.output


@pytest.mark.parametrize("phase", ["stage", "start", "shift", "verify"])
def test_killed_run_is_settled_by_the_next_one(site: Site, phase: str) -> None:
    assert site.live() == "1.1.0"
    last = max(run_numbers(site), default=0)
    process = site.start("deploy", app_version="1.0.0", accounting_requests_per_second=0)
    await_event(site, last, intends(phase))
    time.sleep(1)  # somewhere in the middle of what it does then
    kill_all(process)
    process.communicate()
    assert site.answers() in ({"1.1.0"}, {"1.0.0"})
    done = site.deploy("1.1.0")
    assert done.code == 0, done.output
    assert site.answers() == {"1.1.0"} and site.live() == "1.1.0"
    assert "interrupted" in [record["outcome"] for record in site.history()[-2:]]
    orphans = [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_proxy(pid, site.kubeconfig)]
    assert orphans == [], "kubectl proxy must end with the module that started it"


def _is_proxy(pid: str, kubeconfig: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")
    except OSError:
        return False
    return b"proxy" in words and kubeconfig.encode() in words


def test_old_releases_go_and_take_their_configuration_with_them(site: Site) -> None:
    site.release("1.4.0")
    site.release("1.5.0")
    for version in ("1.4.0", "1.5.0"):
        done = site.deploy(version, app_keep_releases=1, accounting_requests_per_second=0)
        assert done.code == 0, done.output
    parts = [
        one["metadata"]["labels"].get("signalbox.runbook/part")
        for one in site.objects("configmaps,secrets")
        if "labels" in one["metadata"]
    ]
    manifests = parts.count("release")
    assert manifests == 2, parts  # the live one and the one before it
    assert parts.count("secret") == 2 and parts.count("files") == 2
