"""The life of an application in Docker Compose through the engine: two targets behind one nginx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from compose_site import ComposeSite, make_site
from engine import docker

from runbook_site import tree


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, cleaned: None) -> Iterator[ComposeSite]:
    for made in make_site(tmp_path_factory.mktemp("compose"), "life", 2):
        for version in ("1.0.0", "1.1.0"):
            made.release(version)
            done = made.deploy(version)
            assert done.code == 0, done.output
        assert made.history()[-1]["artifacts"] == {"backend": {"image": made.image}}
        yield made


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


def test_status_tells_that_a_container_was_killed_and_recover_heals_it(site: ComposeSite) -> None:
    assert "all agree" in site.status().output
    slot = site.history()[-1]["to"]["slot"]
    docker("kill", site.container("target2", slot))
    told = site.status()
    assert "target2 does not run 1.1.0" in told.output, told.output
    healed = site.run("recover")
    assert healed.code == 0, healed.output
    assert site.slot("target2", slot) == "1.1.0" and site.answers() == {"1.1.0"}
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
