# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _links
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._links import read_links, set_links


@pytest.fixture
def home(tmp_path):
    for release in ("1.0-aa", "1.1-bb"):
        (tmp_path / "releases" / release).mkdir(parents=True)
        (tmp_path / "releases" / release / "manifest.json").write_text("{}")
    return tmp_path


def test_links_are_made_changed_and_removed(home):
    assert read_links(home) == {"current": "", "previous": ""}
    assert set_links(home, {"current": "1.0-aa", "previous": ""}) is True
    assert set_links(home, {"current": "1.0-aa", "previous": ""}) is False
    assert set_links(home, {"current": "1.1-bb", "previous": "1.0-aa"}) is True
    assert os.readlink(home / "current") == "releases/1.1-bb"
    assert read_links(home) == {"current": "1.1-bb", "previous": "1.0-aa"}
    assert set_links(home, {"current": "1.0-aa", "previous": ""}) is True
    assert read_links(home) == {"current": "1.0-aa", "previous": ""}
    assert sorted(os.listdir(home)) == ["current", "releases"]


@pytest.mark.requirement("REL-03")
def test_a_link_is_never_missing_while_it_changes(home, monkeypatch):
    """Killed between the two calls, the old link is still there, and the next call clears what was left."""
    set_links(home, {"current": "1.0-aa"})

    def killed(_source, _destination):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_links.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            set_links(home, {"current": "1.1-bb"})
    assert read_links(home)["current"] == "1.0-aa"
    assert len(os.listdir(home)) == 3
    assert set_links(home, {"current": "1.1-bb"}) is True
    assert sorted(os.listdir(home)) == ["current", "releases"]


@pytest.mark.requirement("REL-03")
@pytest.mark.parametrize("name", ["current", "previous"])
def test_a_real_directory_is_refused_and_nothing_changes(home, name):
    (home / name).mkdir()
    with pytest.raises(RunbookError, match=f"{name} is no symbolic link, so it is not replaced"):
        set_links(home, {"current": "1.1-bb", "previous": "1.0-aa"})
    assert sorted(os.listdir(home)) == sorted([name, "releases"])
    assert os.listdir(home / name) == []


def test_a_link_of_somebody_else_is_refused(home):
    (home / "current").symlink_to("/opt/other")
    with pytest.raises(RunbookError, match="leads to /opt/other, which is no release below"):
        set_links(home, {"current": "1.0-aa"})
    assert os.readlink(home / "current") == "/opt/other"


def test_a_release_that_is_not_there_is_refused(home):
    with pytest.raises(RunbookError, match=r"cannot lead to the release 9\.9-ff"):
        set_links(home, {"current": "1.0-aa", "previous": "9.9-ff"})
    assert read_links(home) == {"current": "", "previous": ""}


def test_check_mode_predicts(home):
    assert set_links(home, {"current": "1.0-aa"}, check=True) is True
    assert read_links(home)["current"] == ""
