# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: accounting
short_description: Keep asking an application while it is changed, and count the truth
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Starts a prober on the controller that asks one URL at a constant rate and never retries, reads the numbers while
    it goes on, and stops it.
  - The load is open-loop. A request is due at its time whatever became of the others, and its duration and its timeout
    count from then, so that a stall shows as the many slow answers that users would see.
  - A request fails on a status of 400 or more, on a timeout, and when there is no connection or no whole answer.
    A connection that the server closes while it owes an answer is counted as cut besides. A connection that it closes
    while idle is not used again, and nothing is counted.
  - The prober ends when it is stopped, at its bounds, and within about two seconds after the C(ansible-playbook)
    process that started it is gone, however that ended. In that last case it removes its files itself.
  - Runs on the controller, once per host of the play. Use it on C(localhost) or with C(run_once).
options:
  state:
    description:
      - V(started) starts the prober and returns after its first sample.
      - V(read) returns the numbers so far.
      - V(stopped) lets the prober finish the requests under way, returns the numbers and removes its files.
    type: str
    choices: [started, stopped, read]
    required: true
  accounting:
    description:
      - RV(accounting) of the task that started it, for V(stopped) and V(read).
      - Without it, RV(requests) is null.
    type: dict
    suboptions:
      directory:
        description: Where the prober writes its samples.
        type: path
        required: true
      pid:
        description: Process of the prober.
        type: int
        required: true
      start_time:
        description:
          - When that process started, in clock ticks since boot. A later process with the same pid is left alone.
        type: int
        required: true
      started_at:
        description: When the accounting started, in seconds since the epoch.
        type: float
        required: true
      timeout_seconds:
        description: Longest time for an answer, in seconds.
        type: float
        required: true
  url:
    description:
      - What is asked, with C(GET). Without it, or in check mode, nothing is started and RV(accounting) is null.
    type: str
  headers:
    description: Further request headers. They are handed to the prober in private and are written nowhere.
    type: dict
  requests_per_second:
    description: Requests per second, of all clients together.
    type: float
    default: 50
  connections:
    description:
      - Number of clients, each with one request at a time.
      - Should be more than O(requests_per_second) times the usual answer time in seconds. A request that finds no free
        client waits for one, and the waiting counts.
    type: int
    default: 8
  keep_alive:
    description:
      - Whether clients use their connection again.
      - V(both) means that half of the clients do.
    type: str
    choices: ['true', 'false', both]
    default: both
  version_path:
    description:
      - Dotted path of the version in a JSON answer, such as C(version) or C(build.version).
      - Without it, RV(requests.by_version) is empty.
    type: str
    default: ''
  max_requests:
    description: Number of requests after which the prober ends by itself.
    type: int
    default: 100000
  max_seconds:
    description: Time after which the prober ends by itself, in seconds.
    type: float
    default: 3600
  timeout_seconds:
    description: Longest time for an answer, in seconds. A later one is a failed request.
    type: float
    default: 5
  validate_certs:
    description: Whether an C(https) server must prove who it is.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Nothing is started in check mode. RV(accounting) is null.
  diff_mode:
    support: none
    description: It changes nothing that could be compared.
notes:
  - The controller needs C(/proc).
"""

EXAMPLES = r"""
- name: Ask through the router while the traffic moves
  signalbox.runbook.accounting:
    state: started
    url: https://shop.example.com/version
    version_path: version
    requests_per_second: 50
    connections: 8
  delegate_to: localhost
  run_once: true
  register: asking

- name: See how it goes
  signalbox.runbook.accounting:
    state: read
    accounting: "{{ asking.accounting }}"
  delegate_to: localhost
  run_once: true
  register: so_far

- name: Count
  signalbox.runbook.accounting:
    state: stopped
    accounting: "{{ asking.accounting }}"
  delegate_to: localhost
  run_once: true
  register: counted
  failed_when: counted.requests.failed > 0
"""

RETURN = r"""
accounting:
  description: What to give to V(stopped) and V(read), or null when nothing was started.
  returned: when O(state=started)
  type: dict
  sample:
    directory: /tmp/runbook-accounting-k2v9x1
    pid: 4711
    start_time: 1234567
    started_at: 1770112800.25
    timeout_seconds: 5.0
requests:
  description: The numbers, or null without an accounting.
  returned: when O(state=stopped) or O(state=read), or nothing was started
  type: dict
  contains:
    sent:
      description: Number of requests.
      type: int
      returned: always
    failed:
      description: Number of requests without a good answer.
      type: int
      returned: always
    longest_gap_ms:
      description: Longest time without a good answer while asking went on, ends included. Null when nothing was asked.
      type: float
      returned: always
    connections_cut:
      description: Number of connections that the server closed while it owed an answer.
      type: int
      returned: always
    by_version:
      description: Number of good answers of each version.
      type: dict
      returned: always
    failures:
      description: Number of failed requests of each kind, such as C(http_502), C(timeout), C(refused) or C(closed).
      type: dict
      returned: always
    p50_ms:
      description: Median duration of good answers. Null without any.
      type: float
      returned: always
    p95_ms:
      description: 95th percentile of the duration of good answers. Null without any.
      type: float
      returned: always
    p99_ms:
      description: 99th percentile of the duration of good answers. Null without any.
      type: float
      returned: always
    rate:
      description: Requests per second that were asked. Null for less than two.
      type: float
      returned: always
  sample:
    sent: 2900
    failed: 0
    longest_gap_ms: 54.9
    connections_cut: 0
    by_version: {1.2.0: 1287, 1.3.0: 1613}
    failures: {}
    p50_ms: 10.8
    p95_ms: 24.4
    p99_ms: 34.3
    rate: 50.0
samples:
  description: What became of the requests of each second, for the report.
  returned: when O(state=stopped) and O(accounting) is given
  type: list
  elements: dict
  sample: [{t: 0, sent: 50, failed: 0, p95_ms: 24.4, versions: {1.2.0: 50}}]
ended:
  description:
    - Why the prober ended. Anything but C(stopped) means that it did not count until the end, and gives a warning.
    - One of C(stopped), C(max_requests), C(max_seconds), C(killed).
  returned: when O(state=stopped) and O(accounting) is given
  type: str
  sample: stopped
"""
