# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.server
import json
import threading

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.signalbox.runbook.plugins.modules import probe_info


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, value = (200, {"status": "healthy", "token": self.headers["X-Token"]})
        if self.path != "/health":
            status, value = (503, {"status": "starting"})
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def base():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(capsys):
    def run_module(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            probe_info.main()
        text = capsys.readouterr().out
        return json.loads(text), text

    return run_module


@pytest.mark.requirement("HC-43")
@pytest.mark.parametrize("check_mode", [False, True])
def test_healthy_service_of_this_host(run, base, check_mode):
    endpoints = [{"name": "app", "url": f"{base}/health", "expect": {"status": "healthy"}}]
    result, _text = run(endpoints=endpoints, _ansible_check_mode=check_mode)
    assert (result["changed"], result["healthy"], result["summary"]) == (False, True, [])
    assert "warnings" not in result
    assert result["results"][0]["observed"] == {"status": "healthy"}
    documented = yaml.safe_load(probe_info.RETURN)["results"]["contains"]
    assert set(result["results"][0]) == set(documented)


@pytest.mark.requirement("HC-43")
def test_unhealthy_service_fails_with_the_diagnosis(run, base):
    good, bad = {"name": "good", "url": f"{base}/health"}, {"name": "bad", "url": f"{base}/x", "body": "ready"}
    result, _text = run(endpoints=[good, bad])
    assert result["failed"] is True
    assert result["msg"] == "1 of 2 probes failed: " + result["summary"][0]
    assert result["summary"][0].startswith("bad: Application not responding correctly (HTTP 503)")
    assert [one["passed"] for one in result["results"]] == [True, False]


def test_a_report_does_not_fail(run, base):
    result, _text = run(endpoints=[{"url": f"{base}/x"}], must_pass=False)
    assert (result.get("failed", False), result["healthy"], len(result["summary"])) == (False, False, 1)


def test_a_deadline_tries_again(run, base):
    result, _text = run(endpoints=[{"url": f"{base}/x"}], must_pass=False, deadline_seconds=0.3, interval_seconds=0.01)
    assert result["results"][0]["attempts"] > 1


def test_long_failures_are_cut_in_the_message_only(run, base):
    result, _text = run(endpoints=[{"url": f"{base}/{n}"} for n in range(7)])
    assert result["msg"].endswith("(and 2 more)")
    assert len(result["summary"]) == 7


def test_wrong_option_names_the_key(run):
    result, _text = run(endpoints=[{"name": "app", "url": "gopher://x/"}])
    assert result["failed"] is True
    assert result["msg"].startswith("probe app: url must be http://")


def test_a_secret_header_appears_nowhere(run, base):
    result, text = run(endpoints=[{"url": f"{base}/health", "secret_headers": {"X-Token": "tok-1234567890"}}])
    assert result["healthy"] is True
    assert "tok-1234567890" not in text


def test_arguments_are_the_documented_ones():
    def same(spec, documented):
        assert set(spec) == set(documented)
        for name, option in spec.items():
            for key in ("type", "default", "required", "choices", "elements"):
                assert option.get(key) == documented[name].get(key), name
            if "options" in option:
                same(option["options"], documented[name]["suboptions"])

    same(probe_info.ARGUMENTS, yaml.safe_load(probe_info.DOCUMENTATION)["options"])
