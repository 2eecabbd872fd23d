"""Releases and slots of Docker Compose, on the real engine."""

from __future__ import annotations

import pytest
from conftest import Place, docker, refusal


@pytest.mark.requirement("BG-01", "DEP-03")
def test_a_release_is_made_started_beside_the_other_and_stopped(place: Place, built: dict[str, str]) -> None:
    assert place.read()["slots"]["blue"]["release"] == ""
    assert place.stage("1.0")["outcome"] == "made"
    assert place.stage("1.0") == {**place.stage("1.0"), "changed": False, "outcome": "present"}
    first = place.start("blue", "1.0")
    assert first["changed"] and all(answer["passed"] for answer in first["answers"])
    place.stage("1.1")
    place.start("green", "1.1", live="blue")
    assert (place.answer("blue")["version"], place.answer("green")["version"]) == ("1.0", "1.1")
    seen = place.read()
    assert seen["problem"] == "" and [slot["healthy"] for slot in seen["slots"].values()] == [True, True]
    assert seen["slots"]["green"]["services"]["api"]["image"] == built["1.1"]
    assert place.start("green", "1.1", live="blue")["changed"] is False
    assert place.prove("green", "1.1")["changed"] is False
    assert place.stop("blue", live="green")["changed"] is True
    assert place.stop("blue", live="green")["changed"] is False
    assert docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={place.project}-blue") == ""
    assert place.answer("green")["version"] == "1.1"
    assert "takes the traffic" in refusal(place.stop, "green", live="green")
