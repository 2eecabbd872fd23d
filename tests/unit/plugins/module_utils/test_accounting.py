# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The numbers; and the action plugin in a real ansible-playbook, with a real prober and a real server."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _prober
from ansible_collections.signalbox.runbook.plugins.module_utils._accounting import (
    Sample,
    longest_gap_ms,
    percentile,
    prober_config,
    read_samples,
    summary,
    window,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from hypothesis import given
from hypothesis import strategies as st

PATIENCE = 60.0

SAMPLES = st.lists(
    st.builds(
        lambda start, duration, kind, version, reused, cut: Sample(
            start, duration, kind is None, kind or "", version, reused, bool(kind) and cut
        ),
        st.floats(0, 1000),
        st.floats(0, 10000),
        st.sampled_from([None, None, "timeout", "http_502", "closed"]),
        st.sampled_from([None, "1.2.0", "1.3.0"]),
        st.booleans(),
        st.booleans(),
    )
)


def good(start_s, duration_ms=0.0, version=None):
    return Sample(start_s, duration_ms, True, "", version, True, False)


def bad(start_s, duration_ms=0.0, kind="http_502", cut=False):
    return Sample(start_s, duration_ms, False, kind, None, True, cut)


def line(*values):
    return json.dumps(values) + "\n"


@given(SAMPLES)
def test_every_request_is_counted_once(samples):
    account = summary(samples)
    ok = sum(sample.ok for sample in samples)
    assert account["sent"] == len(samples) == ok + account["failed"]
    assert sum(account["failures"].values()) == account["failed"]
    assert sum(account["by_version"].values()) == sum(sample.ok and sample.version is not None for sample in samples)
    assert account["connections_cut"] <= account["failed"]
    if ok:
        latencies = [sample.duration_ms for sample in samples if sample.ok]
        assert min(latencies) <= account["p50_ms"] <= account["p95_ms"] <= account["p99_ms"] <= max(latencies)
    else:
        assert account["p50_ms"] is account["p95_ms"] is account["p99_ms"] is None


@given(SAMPLES)
def test_the_order_of_the_samples_does_not_matter(samples):
    assert summary(samples[::-1]) == summary(samples)


@given(SAMPLES, st.floats(0, 1100))
def test_windows_side_by_side_count_every_request_once(samples, border):
    early, late = window(samples, 0, border), window(samples, border, 2000)
    for key in ("sent", "failed", "connections_cut"):
        assert early[key] + late[key] == summary(samples)[key]


@given(SAMPLES)
def test_the_gap_is_no_longer_than_the_asking_and_no_shorter_than_its_even_share(samples):
    gap = longest_gap_ms(samples)
    if not samples:
        assert gap is None
        return
    asking_ms = (max(sample.end_s for sample in samples) - min(sample.start_s for sample in samples)) * 1000
    parts = sum(sample.ok for sample in samples) + 1
    assert asking_ms / parts - 0.1 <= gap <= asking_ms + 0.1


def test_nothing_asked_is_not_the_same_as_nothing_failed():
    nothing = summary([])
    assert (nothing["sent"], nothing["failed"], nothing["longest_gap_ms"], nothing["rate"]) == (0, 0, None, None)
    assert window([], 0, 10)["error_percent"] is None
    assert window([good(1)], 0, 10)["error_percent"] == 0


@pytest.mark.parametrize(
    ("samples", "gap"),
    [
        ([good(0), good(0.1), good(0.5), good(0.6)], 400),
        ([good(0, 50), good(0.1, 250)], 300),  # between the moments when the answers were there
        ([bad(0), bad(0.1), good(0.7), good(0.8)], 700),  # from the first request to the first good answer
        ([good(0), good(0.1), bad(0.2, 5000, "timeout")], 5100),  # from the last good answer to the end
        ([bad(1), bad(3, 500)], 2500),
        ([good(0), bad(0.1), bad(0.2), good(0.3)], 300),
    ],
)
def test_longest_gap(samples, gap):
    assert longest_gap_ms(samples) == pytest.approx(gap)


def test_summary():
    samples = [good(n / 10, 10 + n, "1.2.0" if n < 60 else "1.3.0") for n in range(100)]
    samples += [bad(10.0, 1, "closed", cut=True), bad(10.1)]
    assert summary(samples) == {
        "sent": 102,
        "failed": 2,
        "longest_gap_ms": 101.0,
        "connections_cut": 1,
        "by_version": {"1.2.0": 60, "1.3.0": 40},
        "failures": {"closed": 1, "http_502": 1},
        "p50_ms": 59,
        "p95_ms": 104,
        "p99_ms": 108,
        "rate": 10.0,
    }


def test_window_takes_what_ended_in_it():
    samples = [good(1.0, 100), bad(1.5, 5000, "timeout"), good(2.0, 100), bad(6.0), good(7.0, 40)]
    assert window(samples, 0, 5)["error_percent"] == 0
    seen = window(samples, 5, 7.02)
    assert (seen["sent"], seen["failed"], seen["error_percent"], seen["p95_ms"]) == (2, 2, 100, None)
    assert window(samples, 5, 8)["error_percent"] == pytest.approx(66.667)
    assert window(samples, 5, 8)["longest_gap_ms"] == pytest.approx(2040)


def test_percentile_is_a_measured_value():
    assert percentile([], 95) is None
    assert percentile([7.0], 1) == 7.0
    assert [percentile(range(1, 21), percent) for percent in (50, 95, 99, 100)] == [10, 19, 20, 20]


def test_read_samples_goes_on_where_it_was():
    first, second = line(0.1, 5.5, 1, "", "1.2.0", 0, 0), line(0.2, 1.0, 0, "closed", None, 1, 1)
    text = first + second[:9]
    samples, offset = read_samples(text)
    assert samples == [Sample(0.1, 5.5, True, "", "1.2.0", False, False)]
    assert offset == len(first)
    assert read_samples(text, offset) == ([], offset)
    assert read_samples(first + second, offset) == (
        [Sample(0.2, 1.0, False, "closed", None, True, True)],
        len(first + second),
    )
    assert read_samples("") == ([], 0)


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(1, 40))
def test_read_samples_in_pieces_finds_every_sample_once(numbers, size):
    text = "".join(line(float(n), 1.5, 1, "", f"v{n}", 0, 0) for n in numbers)
    found, offset = [], 0
    for end in range(size, len(text) + size, size):
        more, offset = read_samples(text[:end], offset)
        found += more
    assert [sample.start_s for sample in found] == numbers


@pytest.mark.parametrize("text", ["garbage\n", "[1, 2]\n", "{}\n", '["x", 1, 1, "", null, 0, 0]\n', "7\n"])
def test_a_line_that_is_no_sample_is_an_error(text):
    with pytest.raises(RunbookError, match="not a line of request samples"):
        read_samples(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://x/"}, "url is not usable"),
        ({"url": "http://"}, "url is not usable"),
        ({"url": "http://x:99999/"}, "url is not usable"),
        ({"url": "http://x/a b"}, "url has a space"),
        ({"url": "http://x/\r\nHost: y"}, "url has a space"),
        ({"url": "http://me:pw@x/"}, "url holds a user name"),
        ({"requests_per_second": 0}, "requests_per_second is 0"),
        ({"max_requests": -1}, "max_requests is -1"),
        ({"max_seconds": float("inf")}, "max_seconds is inf"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds is nan"),
        ({"keep_alive": "maybe"}, "keep_alive is 'maybe'"),
        ({"keep_alive": "both", "connections": 1}, "connections is 1"),
        ({"headers": {"A b": "x"}}, "headers has the name 'A b'"),
        ({"headers": {"Authorization": "s3cret\r\nX: y"}}, "headers has a line break"),
    ],
)
def test_prober_config_says_what_is_wrong(options, message):
    with pytest.raises(RunbookError, match=message) as raised:
        prober_config(**{"url": "http://127.0.0.1/", **options})
    assert "s3cret" not in str(raised.value)
    assert "pw" not in str(raised.value)


def test_prober_config_is_bounded_by_default():
    config = prober_config("http://127.0.0.1:8080/version", {"X-Number": 7}, version_path="$.build.version")
    assert (config["max_requests"], config["max_seconds"], config["timeout_seconds"]) == (100000, 3600, 5)
    assert (config["version_path"], config["headers"]) == (["build", "version"], {"X-Number": "7"})


# --- the action plugin ---------------------------------------------------------------------------------------------

ROOT = Path(_prober.__file__).parents[2]
COLLECTIONS = next(path for path in map(Path, sys.path) if (path / "ansible_collections/signalbox/runbook").is_dir())

PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - signalbox.runbook.accounting:
        state: started
        url: "{{ url }}"
        headers: {Authorization: Bearer s3cr3t-token}
        requests_per_second: 50
        connections: 4
        version_path: version
      register: asking
    - ansible.builtin.copy:
        content: "{{ asking | to_json }}"
        dest: "{{ out }}/started.json"
        mode: "0600"
    - ansible.builtin.wait_for:
        path: "{{ out }}/go"
        sleep: 1
        timeout: 50
    - signalbox.runbook.accounting:
        state: read
        accounting: "{{ asking.accounting }}"
      register: so_far
    - signalbox.runbook.accounting:
        state: stopped
        accounting: "{{ asking.accounting }}"
      register: counted
    - ansible.builtin.copy:
        content: "{{ [so_far, counted] | to_json }}"
        dest: "{{ out }}/counted.json"
        mode: "0600"
"""


@pytest.fixture
def url():
    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status = 200 if self.headers["Authorization"] == "Bearer s3cr3t-token" else 401
            self.send_response(status)
            self.send_header("Content-Length", "20")
            self.end_headers()
            self.wfile.write(b'{"version": "1.2.0"}')

        def log_message(self, format, *args):
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def playbook(tmp_path, text, *arguments, **variables):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "play.yml").write_text(text)
    (tmp_path / "ansible.cfg").touch()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
        "LC_ALL": "C.UTF-8",
    }
    extra = {"out": str(tmp_path), "ansible_python_interpreter": sys.executable, **variables}
    with (tmp_path / "output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ansible", "playbook", "-vvv", "-i", "localhost,", "-c", "local"]
            + [str(tmp_path / "play.yml"), "-e", json.dumps(extra), *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def finish(process, tmp_path):
    try:
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    return (tmp_path / "output").read_text()


def await_start(process, tmp_path):
    deadline = time.monotonic() + PATIENCE
    path = tmp_path / "started.json"
    while not path.exists() or not path.read_text():
        assert process.poll() is None, (tmp_path / "output").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return json.loads(path.read_text())


def leftovers(tmp_path):
    return sorted(path.name for path in (tmp_path / "tmp").glob("runbook-accounting-*"))


@pytest.mark.slow
def test_action_starts_reads_and_stops(tmp_path, url):
    process = playbook(tmp_path, PLAYBOOK, url=url)
    started = await_start(process, tmp_path)
    time.sleep(1)
    (tmp_path / "go").touch()
    output = finish(process, tmp_path)
    assert process.returncode == 0, output
    assert "s3cr3t" not in output
    so_far, counted = json.loads((tmp_path / "counted.json").read_text())
    assert not started["changed"]
    assert set(started["accounting"]) == {"directory", "pid", "start_time", "started_at", "timeout_seconds"}
    assert counted["ended"] == "stopped", output
    requests = counted["requests"]
    assert (requests["failed"], requests["connections_cut"], requests["failures"]) == (0, 0, {})
    assert requests["by_version"] == {"1.2.0": requests["sent"]}
    assert requests["sent"] >= so_far["requests"]["sent"] >= 40
    assert sum(bucket["sent"] for bucket in counted["samples"]) == requests["sent"]
    assert leftovers(tmp_path) == []
    assert _prober.process_start(started["accounting"]["pid"]) is None


@pytest.mark.slow
def test_a_killed_playbook_takes_its_prober_with_it(tmp_path, url):
    process = playbook(tmp_path, PLAYBOOK, url=url)
    try:
        accounting = await_start(process, tmp_path)["accounting"]
        assert _prober.process_start(accounting["pid"]) == accounting["start_time"]
        assert os.stat(accounting["directory"]).st_mode & 0o777 == 0o700
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while _prober.process_start(accounting["pid"]) == accounting["start_time"]:
            assert time.monotonic() < deadline, "the prober outlives its playbook"
            time.sleep(0.05)
    finally:
        (tmp_path / "go").touch()  # lets the worker that was left behind end
        process.kill()
        process.wait()
    assert leftovers(tmp_path) == []


OFF = """
- hosts: localhost
  gather_facts: false
  tasks:
    - signalbox.runbook.accounting: {state: started, url: "{{ url }}"}
      register: asking
    - signalbox.runbook.accounting: {state: stopped, accounting: "{{ asking.accounting }}"}
      register: counted
    - ansible.builtin.assert:
        that:
          - asking.accounting is none
          - asking.requests is none
          - counted.requests is none
          - asking is not changed
"""


@pytest.mark.slow
@pytest.mark.parametrize(("address", "arguments"), [("", []), ("http://127.0.0.1:9/", ["--check"])])
def test_action_without_url_and_in_check_mode_asks_nothing(tmp_path, address, arguments):
    process = playbook(tmp_path, OFF, *arguments, url=address)
    output = finish(process, tmp_path)
    assert process.returncode == 0, output
    assert leftovers(tmp_path) == []


FOREIGN = """
- hosts: localhost
  gather_facts: false
  tasks:
    - signalbox.runbook.accounting:
        state: stopped
        accounting:
          {directory: "{{ directory }}", pid: "{{ pid }}", start_time: 1, started_at: 1.0, timeout_seconds: 5}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"), [("precious", "it must be what state started returned"), ("runbook-accounting-x", None)]
)
def test_action_stops_no_other_process_and_removes_no_other_directory(tmp_path, name, message):
    """A later process may have got the pid: only the start time tells."""
    directory = tmp_path / name
    directory.mkdir()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        process = playbook(tmp_path, FOREIGN, directory=str(directory), pid=bystander.pid)
        output = finish(process, tmp_path)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert (process.returncode == 0) is (message is None), output
    assert directory.exists() is (message is not None)
    if message:
        assert message in output
    else:
        assert "The prober ended before it was stopped (killed)" in output
