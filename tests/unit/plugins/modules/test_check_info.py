"""The module: what it takes is what the kinds take, and what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import KINDS, OPTIONS, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems
from ansible_collections.signalbox.runbook.plugins.modules import check_info

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "checks.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_module(*checks: dict[str, Any], **more: Any) -> tuple[dict[str, Any], str]:
        with patch_module_args({"checks": list(checks), **more}), pytest.raises(SystemExit):
            check_info.main()
        text = capsys.readouterr().out
        return json.loads(text), text

    return run_module


def test_every_option_of_every_kind_is_documented_with_its_type() -> None:
    documented = yaml.safe_load(check_info.DOCUMENTATION)["options"]["checks"]["suboptions"]
    assert {key: (spec["type"], spec.get("elements")) for key, spec in documented.items()} == {
        key: (spec["type"], spec.get("elements")) for key, spec in OPTIONS.items()
    }
    kinds = " ".join(documented["check"]["description"])
    assert all(f"V({kind})" in kinds for kind in KINDS)


def row(section: str, key: str) -> list[str]:
    (line,) = re.findall(rf"^\| `{key}` \|(.*)\|$", section, re.MULTILINE)
    return [cell.strip() for cell in line.split(" |")]


def test_every_kind_has_a_section_with_its_options_and_what_it_measures_with_the_default_limits() -> None:
    assert list(SECTIONS) == list(KINDS)
    for name, kind in KINDS.items():
        section = SECTIONS[name]
        for measure in kind.measures:
            cells = row(section[section.index("| measured |") :], measure)
            limits = [
                f"`{limits[measure]}`" if measure in limits else "" for limits in (kind.fail_when, kind.warn_when)
            ]
            assert cells[:2] == limits, f"{name}: {measure}"
        for key, spec in kind.options.items():
            default, text = row(section[: section.index("| measured |")], key)[:2]
            if spec.get("required"):
                assert default == "required", f"{name}: {key}"
            elif spec.get("default") not in (None, "", [], {}):
                value = spec["default"]
                assert default == f"`{str(value).lower() if isinstance(value, bool) else value}`", f"{name}: {key}"
            assert text.endswith("secret") == spec.get("no_log", False), f"{name}: {key}"
        assert "\nLimits. " in section


def test_the_examples_of_the_page_and_of_the_module_are_right() -> None:
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert len(examples) == len(KINDS) + 1
    examples += [task["signalbox.runbook.check_info"]["checks"] for task in yaml.safe_load(check_info.EXAMPLES)[:1]]
    for checks in examples:
        text = json.dumps(checks).replace("{{ database_url }}", "postgresql://a:b@h/d")
        problems = Problems()
        parse(json.loads(text.replace("{{ redis_url }}", "redis://:b@h")), "checks", problems)
        assert not problems


@pytest.mark.parametrize("check_mode", [False, True])
def test_this_host_is_measured_the_same_in_check_mode(run: Run, check_mode: bool) -> None:
    result, _text = run(
        {"name": "root", "check": "disk", "fail_when": {"free_percent": "< 0", "free_inodes_percent": None}},
        {"name": "memory", "check": "memory", "fail_when": {"used_percent": "> 100"}, "weight": 2, "blocking": False},
        {"name": "gone", "check": "file", "path": "/nowhere/at/all"},
        _ansible_check_mode=check_mode,
    )
    assert not result["changed"] and "warnings" not in result
    assert [one["status"] for one in result["checks"]] == ["pass", "pass", "fail"]
    assert [(one["weight"], one["blocking"]) for one in result["checks"]] == [(1, True), (2, False), (1, True)]


def test_all_problems_are_said_at_once(run: Run) -> None:
    result, _text = run({"name": "a", "check": "dsik"}, {"name": "b", "check": "disk", "url": "http://h/"})
    assert result["failed"] and len(result["problems"]) == 2
    assert result["msg"] == (
        "checks[0].check: 'dsik' is no kind of check; did you mean disk?. checks[1].url: unknown key"
    )


def test_no_secret_comes_out(run: Run) -> None:
    result, text = run(
        {
            "name": "p",
            "check": "command",
            "argv": ["sh", "-c", "echo $TOKEN; exit 3"],
            "environment": {"TOKEN": "hush1"},
        },
        {"name": "r", "check": "redis", "port": 1, "password": "hush2"},
        {"name": "u", "check": "redis", "uri": "redis://:hush3@127.0.0.1:1"},
    )
    assert [one["status"] for one in result["checks"]] == ["fail"] * 3
    assert "hush" not in text
