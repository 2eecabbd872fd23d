"""The life of an application in Docker Compose through the engine: two targets behind one nginx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from compose_site import ComposeSite, make_site
from conftest import docker

from runbook_site import tree

WATCH = {"watch_seconds": 2, "watch_interval_seconds": 0.5}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, cleaned: None) -> Iterator[ComposeSite]:
    yield from make_site(tmp_path_factory.mktemp("compose"), "life", 2)


@pytest.mark.smoke
@pytest.mark.requirement("BG-01", "BG-04")
def test_first_release_then_an_upgrade(site: ComposeSite) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    first = site.deploy("1.0.0", **WATCH)
    assert first.code == 0, first.output
    assert site.answers() == {"1.0.0"}
    second = site.deploy("1.1.0", **WATCH)
    assert second.code == 0, second.output
    assert second.outcome == "deployed"
    assert site.answers() == {"1.1.0"}
    assert second.report and second.report["requests"]["sent"] > 0
    assert second.report["requests"]["failed"] == 0
    assert site.slots() == {t: {"blue": "1.0.0", "green": "1.1.0"} for t in site.lab.names}
    assert site.history()[-1]["artifacts"] == {"backend": {"image": site.image}}


@pytest.mark.smoke
@pytest.mark.requirement("DEP-19")
def test_same_release_again_changes_nothing(site: ComposeSite) -> None:
    before, running = tree(site.lab.root / "targets", site.state), site.containers()
    ids = docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *sorted(running))
    again = site.deploy("1.1.0", "-v")
    assert again.code == 0, again.output
    assert "nothing to do" in again.output and "changed:" not in again.output
    assert tree(site.lab.root / "targets", site.state) == before
    assert docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *sorted(running)) == ids


def test_same_version_with_other_configuration_is_another_release(site: ComposeSite) -> None:
    """A variable of the compose files, then the files themselves."""
    live = site.history()[-1]["to"]["release"]
    other = site.deploy("1.1.0", test_greeting="good morning")
    assert other.code == 0, other.output
    release = site.history()[-1]["to"]["release"]
    assert release != live and release.startswith("1.1.0-")
    environment = docker("inspect", "--format", "{{.Config.Env}}", site.container("target1", "blue"))
    assert "GREETING=good morning" in environment
    path = site.files / "base.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("/tmp]", "/tmp, /var/tmp]"), encoding="utf-8")
    third = site.deploy("1.1.0", test_greeting="good morning")
    assert third.code == 0, third.output
    assert site.history()[-1]["to"]["release"] not in (live, release)
    assert site.answers() == {"1.1.0"}


@pytest.mark.requirement("BG-03")
def test_release_that_never_gets_healthy_takes_no_traffic(site: ComposeSite) -> None:
    site.release("1.2.0", never_ready=True)
    bad = site.deploy("1.2.0", accounting_requests_per_second=100)
    assert bad.code != 0
    assert bad.outcome == "failed"
    assert site.answers() == {"1.1.0"}
    assert {len(set(slots.values())) for slots in site.slots().values()} == {2}
    assert bad.report and list(bad.report["requests"]["by_version"]) == ["1.1.0"]
    assert "never took traffic" in bad.output


def test_release_that_does_not_start_shows_its_last_words(site: ComposeSite) -> None:
    site.release("1.2.2", fail_to_start=True)
    bad = site.deploy("1.2.2")
    assert bad.outcome == "failed"
    assert "settings.payment_key is missing" in bad.output
    assert "restarted" in bad.output or "ended" in bad.output
    assert site.answers() == {"1.1.0"}


def test_compose_files_that_are_not_there_are_named_before_anything_is_touched(site: ComposeSite) -> None:
    before = tree(site.lab.root / "targets", site.state)
    for files, said in (
        (["nowhere.yml"], "[0]: 'nowhere.yml' can't be read on the controller: there is no such file"),
        ([], "runtime_compose_files: is empty; name the compose files of the application, the base first"),
    ):
        refused = site.deploy("1.1.0", runtime_compose_files=files)
        assert refused.code != 0
        assert said in refused.output and "Nothing has been touched" in refused.output, refused.output
    assert tree(site.lab.root / "targets", site.state) == before


def test_image_that_is_nowhere_fails_the_stage(site: ComposeSite) -> None:
    before = site.containers()
    missing = site.deploy("9.9.9")
    assert missing.outcome == "failed"
    assert f"{site.image}:9.9.9 of backend can't be pulled" in missing.output
    assert site.answers() == {"1.1.0"} and site.containers() == before


@pytest.mark.requirement("BG-12")
def test_release_that_turns_bad_is_taken_back_by_the_watch(site: ComposeSite) -> None:
    site.release("1.3.0", errors_percent=60, after_seconds=1)
    bad = site.deploy(
        "1.3.0",
        watch_seconds=30,
        watch_interval_seconds=0.5,
        watch_window_seconds=3,
        accounting_requests_per_second=100,
    )
    assert bad.code != 0
    assert bad.outcome == "rolled_back", bad.output
    assert site.answers() == {"1.1.0"}
    assert any('relation "reports" does not exist' in line for log in bad.report["log"].values() for line in log)


def test_rollback_goes_to_the_verified_release_before(site: ComposeSite) -> None:
    good = site.history()
    before = [record["to"]["release"] for record in good if record["outcome"] == "deployed"][-2]
    back = site.rollback()
    assert back.code == 0, back.output
    assert back.outcome == "restored"
    assert site.history()[-1]["to"]["release"] == before
    further = site.rollback(rollback_to="1.0.0")
    assert further.code == 0, further.output
    assert site.answers() == {"1.0.0"}


def test_status_tells_that_a_container_was_killed_and_the_next_deploy_heals_it(site: ComposeSite) -> None:
    assert "all agree" in site.status().output
    slot = site.history()[-1]["to"]["slot"]
    docker("kill", site.container("target2", slot))
    told = site.status()
    assert "target2 does not run 1.0.0" in told.output, told.output
    healed = site.deploy("1.0.0")
    assert healed.code == 0, healed.output
    assert site.answers() == {"1.0.0"}
    assert "all agree" in site.status().output


@pytest.mark.requirement("REL-08")
def test_old_releases_and_their_images_are_removed(site: ComposeSite) -> None:
    for version in ("1.4.0", "1.5.0", "1.6.0"):
        site.release(version)
        done = site.deploy(version, app_keep_releases=2)
        assert done.code == 0, done.output
    kept = {path.name.partition("-")[0] for path in (site.lab.home("target1") / "releases").iterdir()}
    assert kept == {"1.5.0", "1.6.0"}
    names = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"runbook/{site.project}-target1-backend")
    assert {name.rpartition(":")[2].partition("-")[0] for name in names.split()} == {"1.5.0", "1.6.0"}
    assert docker("image", "ls", "--quiet", f"{site.image}:1.4.0"), (
        "an image that we did not pull is not ours to remove"
    )
