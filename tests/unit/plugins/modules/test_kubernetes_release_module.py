# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module makes of the user's settings, and every bad one as one sentence."""

from __future__ import annotations

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.modules import kubernetes_release

ONE = {"name": "api", "image": "api:1", "command": None, "environment": {}, "secrets": {}, "files": {}}
CPU = {"requests": {"cpu": "50m"}}


def settings(autoscaling=None, resources=None, own=None):
    given = {
        "services": [ONE],
        "replicas": 2,
        "resources": CPU if resources is None else resources,
        "autoscaling": autoscaling or {},
        "overrides": {"api": own} if own else {},
    }
    return kubernetes_release.parts(given)[0]["settings"]


def test_without_an_autoscaler_nothing_says_so():
    assert settings() == {"replicas": 2, "resources": CPU, "deployment": {}}
    assert settings({"min": 1, "max": 2}, own={"autoscaling": {}}) == settings()


def test_an_autoscaler_is_part_of_the_settings():
    assert settings({"min": "2", "max": 4})["autoscaling"] == {"min": 2, "max": 4, "cpu_percent": 80}
    own = {"autoscaling": {"min": 1, "max": 3, "cpu_percent": 50}}
    assert settings({"min": 2, "max": 4}, own=own)["autoscaling"] == own["autoscaling"]
    container = {"name": "api", "resources": CPU}
    own = {"deployment": {"spec": {"template": {"spec": {"containers": [container]}}}}}
    assert settings({"min": 1, "max": 2}, resources={}, own=own)["autoscaling"]["max"] == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"autoscaling": {"min": 1}}, "autoscaling.max: is missing; give a number of pods (api)"),
        ({"autoscaling": {"min": 3, "max": 2}}, "autoscaling.min: 3 is more than max, 2 (api)"),
        ({"autoscaling": {"min": 0, "max": 2}}, "autoscaling.min: must be a whole number above 0, not 0 (api)"),
        ({"autoscaling": {"min": 1, "maxi": 2}}, "autoscaling.maxi: is unknown; did you mean max? (api)"),
        (
            {"autoscaling": {"min": 1, "max": 2}, "resources": {}},
            "autoscaling: goes by the CPU that api requests, but it requests none; give resources.requests.cpu",
        ),
        ({"own": {"autoscaling": 3}}, "overrides.api.autoscaling: must be a mapping"),
    ],
)
def test_a_bad_autoscaler_is_one_sentence(given, said):
    with pytest.raises(RunbookError) as error:
        settings(**given)
    assert str(error.value) == said
