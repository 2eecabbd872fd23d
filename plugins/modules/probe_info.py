# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: probe_info
short_description: Ask HTTP endpoints and say what is wrong
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Asks any number of HTTP endpoints at once, from the host it runs on, and compares status, JSON values, body,
    headers, version and latency with what is expected.
  - An endpoint that does not answer as expected is diagnosed, refused connection, time limit, name resolution, TLS,
    redirect to https, refused host name, wrong path, wrong port or no JSON, with the likely fix in one line.
  - Changes nothing. Redirects are not followed and the proxies of the environment are not used.
attributes:
  check_mode:
    support: full
    description: Asks the same way in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  endpoints:
    description: What to ask.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the probe is called in messages; its URL when left out.
        type: str
      url:
        description: Address to ask, with V(http) or V(https). It is shown in results, so it must not hold a secret.
        type: str
        required: true
      method:
        description:
          - HTTP method.
          - An application that rejects V(HEAD) with 405 or 501 is asked again with V(GET).
        type: str
        choices: [GET, HEAD, OPTIONS]
        default: GET
      status:
        description: HTTP statuses that pass.
        type: list
        elements: int
        default: [200]
      expect:
        description:
          - Dotted JSON paths of the body and the values that they must have, for example V(checks.db.status) or
            V(items.0.id).
          - The part V(*) stands for every member of a list or dictionary, of which there must be at least one.
          - Types count, the text V("1"), the number V(1) and V(true) differ.
        type: dict
        default: {}
      body:
        description: Regular expression that must be found in the body.
        type: str
      headers:
        description:
          - Request headers, for example V(Host) for a virtual server.
          - V(Authorization) and V(Cookie) are refused here, give them in O(endpoints[].secret_headers).
        type: dict
        default: {}
      secret_headers:
        description: Request headers that are never shown, for example V(Authorization).
        type: dict
        default: {}
      expect_headers:
        description: Answer headers, in any case, and the regular expressions that must be found in them.
        type: dict
        default: {}
      version:
        description: Version that must answer.
        type: str
      versions:
        description: Versions of which any may answer, for example while two slots share the traffic.
        type: list
        elements: str
        default: []
      version_path:
        description:
          - Dotted JSON path of the version in the body; empty when the whole body is the version.
          - Given without a version, the version that answers is reported as C(observed).
        type: str
        default: ""
      within_ms:
        description: Milliseconds within which the answer must be complete, name resolution and connection included.
        type: int
      successes:
        description: How many answers in a row must pass, each on a new connection. A failure starts the row again.
        type: int
        default: 1
      timeout_seconds:
        description: Seconds one request may take in all.
        type: float
        default: 5
      validate_certs:
        description: Whether the TLS certificate must be trusted and fit the name.
        type: bool
        default: true
      ca_path:
        description:
          - File of the certificate authorities to trust instead of the system's, or a directory of them as
            C(openssl rehash) leaves it.
        type: path
  deadline_seconds:
    description:
      - Seconds within which every endpoint must have passed; until then a failure is tried again.
      - With V(0) every endpoint gets as many tries as it needs successes and its first failure is final.
    type: float
    default: 0
  interval_seconds:
    description: Seconds between two tries of one endpoint.
    type: float
    default: 0.5
  must_pass:
    description: Whether the module fails when a probe fails. Otherwise look at RV(healthy).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Wait for the new release, ready three times in a row
  signalbox.runbook.probe_info:
    deadline_seconds: 60
    endpoints:
      - name: api
        url: http://127.0.0.1:8001/health
        expect:
          status: healthy
          services.*.status: up
        version: 1.4.2
        version_path: version
        successes: 3
      - name: web
        url: http://127.0.0.1:8002/
        body: <title>Shop</title>
        within_ms: 2000

- name: The public site redirects to https
  signalbox.runbook.probe_info:
    endpoints:
      - url: http://shop.example.com/
        status: [301, 308]
        expect_headers:
          Location: ^https://shop\.example\.com/

- name: Health with a token, as a report
  signalbox.runbook.probe_info:
    must_pass: false
    endpoints:
      - url: https://api.example.com/health
        secret_headers:
          Authorization: "Bearer {{ api_token }}"
        expect_headers:
          Strict-Transport-Security: max-age=
          Content-Security-Policy: .
          X-Frame-Options: .
  register: api
"""

RETURN = r"""
healthy:
  description: Whether every probe passed.
  type: bool
  returned: always
summary:
  description: One line per failed probe, what is wrong and the likely fix.
  type: list
  elements: str
  returned: always
  sample:
    - "api: 127.0.0.1:8001: connection refused. Check that the service runs and listens on 127.0.0.1:8001; its log tells
      why when it does not."
results:
  description: One result per endpoint, in their order.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: What the probe is called.
      type: str
      returned: always
    target:
      description: The URL asked.
      type: str
      returned: always
    passed:
      description: Whether it answered as expected.
      type: bool
      returned: always
    observed:
      description:
        - What came. On a failure the value that is wrong, otherwise the most telling of what was asked for, that is
          version, JSON values, body, headers, latency or status.
        - Empty when there was no answer.
      type: raw
      returned: always
    expected:
      description: What should have come instead of C(observed).
      type: raw
      returned: always
    duration_ms:
      description: Milliseconds the last request took.
      type: int
      returned: always
    attempts:
      description: Number of tries.
      type: int
      returned: always
    problem:
      description: What is wrong, in one sentence; empty when passed.
      type: str
      returned: always
    kind:
      description:
        - The sort of problem; empty when passed.
        - One of V(refused), V(timeout), V(dns), V(tls), V(redirect_https), V(host_refused), V(not_found),
          V(wrong_port), V(not_json), V(status), V(expect), V(body), V(header), V(version), V(slow), V(closed).
      type: str
      returned: always
    fix:
      description: The likely fix in one line; empty when passed.
      type: str
      returned: always
    evidence:
      description: Status, telling headers and the begin of the body, or the error. Secret headers are hidden.
      type: dict
      returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import PROBE_OPTIONS, ask, endpoint

ARGUMENTS: dict[str, dict[str, Any]] = {
    "endpoints": {"type": "list", "elements": "dict", "required": True, "options": PROBE_OPTIONS},
    "deadline_seconds": {"type": "float", "default": 0},
    "interval_seconds": {"type": "float", "default": 0.5},
    # Ansible takes the name for that of a password unless told otherwise.
    "must_pass": {"type": "bool", "default": True, "no_log": False},
}
LINES_IN_MESSAGE = 5


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        results = ask(
            [endpoint(raw) for raw in params["endpoints"]],
            deadline_seconds=params["deadline_seconds"],
            interval_seconds=params["interval_seconds"],
        )
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)
    summary = [f"{one.name}: {one.problem}. {one.fix}" for one in results if not one.passed]
    answer = {"healthy": not summary, "results": [one.to_dict() for one in results], "summary": summary}
    if summary and params["must_pass"]:
        more = f" (and {len(summary) - LINES_IN_MESSAGE} more)" if len(summary) > LINES_IN_MESSAGE else ""
        lines = " | ".join(summary[:LINES_IN_MESSAGE])
        module.fail_json(msg=f"{len(summary)} of {len(results)} probes failed: {lines}{more}", **answer)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
