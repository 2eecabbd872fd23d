# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: check_info
short_description: Measure what a deployment depends on, and compare it with limits
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Asks any number of checks at once, from the host it runs on. Each measures numbers that have their unit in the name,
    and has limits for them.
  - What could not be measured is V(missing), which is never a pass. The module itself fails only when a check is not
    well described.
  - Which options, measures and default limits each kind of check has is in C(docs/checks.md).
  - Changes nothing that stays. O(checks[].write) writes to a temporary table of PostgreSQL, and a key of its own to
    Redis which it removes again.
requirements:
  - Linux.
  - psycopg or psycopg2 on the host for checks of the kind V(postgres).
attributes:
  check_mode:
    support: full
    description: Asks the same way in any mode. Nothing is mended.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  mend:
    description: Whether what fails is mended by its O(checks[].remedy), once, and asked again.
    type: bool
    default: false
  checks:
    description: What to ask. The options after O(checks[].weight) are those of single kinds.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the check is called; no other check has this name. Required.
        type: str
      check:
        description:
          - The kind of check. Required.
          - One of V(disk), V(memory), V(cpu), V(file), V(environment), V(log), V(command), V(process), V(unit), V(dns),
            V(tcp), V(certificate), V(http), V(https_redirect), V(csrf), V(rate_limit), V(postgres), V(redis),
            V(prometheus) and V(report).
        type: str
      fail_when:
        description:
          - Limits by what is measured, a relation and a number in quotes each. The check fails when one is met.
          - A limit replaces the default one of the same name; V(null) removes it.
        type: dict
      warn_when:
        description: The same for a warning.
        type: dict
      timeout_seconds:
        description:
          - Seconds that the check may take; V(60) for V(command), V(30) for V(rate_limit), otherwise V(5).
          - For V(http) it is that of each request.
        type: float
      source:
        description: Where the limits come from, for people.
        type: str
      advice:
        description: What to do when it does not pass. Each kind has one of its own.
        type: str
      remedy:
        description:
          - Commands that may mend what it finds, run by O(mend) one after the other.
          - Each has C(argv), a list; C(chdir), a directory; and C(timeout_seconds), 600 by default.
        type: list
        elements: dict
      blocking:
        description: Whether nothing may go on when it does not pass; returned with the result. V(true) by default.
        type: bool
      weight:
        description: How much it counts in a score; returned with the result. V(1) by default.
        type: float
      path:
        description: Absolute path, for V(disk), V(file), V(environment), V(log), V(certificate), V(report).
        type: str
      sample_seconds:
        description: Seconds between two readings, for V(cpu) and the hit rate of V(redis).
        type: float
      required:
        description: Names of keys that must have a value, for V(environment).
        type: list
        elements: str
      pattern:
        description: Regular expression of lines that are bad, for V(log); of command lines, for V(process).
        type: str
      ignore:
        description: Regular expression of lines that are not, for V(log).
        type: str
      last_lines:
        description: How many of the last lines are read, for V(log). V(100), or all with O(checks[].from_byte).
        type: int
      from_byte:
        description: Where to begin, for V(log), such as the size that the file had before the deploy.
        type: int
      max_bytes:
        description: How much is read at most, for V(log) of its end; a V(report) that is larger is refused.
        type: int
      secrets:
        description: Values that must not be in the file, for V(log). They are never shown.
        type: list
        elements: str
      argv:
        description: Program and arguments, for V(command). There is no shell.
        type: list
        elements: str
      chdir:
        description: Directory to run it in, for V(command).
        type: str
      environment:
        description: More environment variables, for V(command). Their values are never shown.
        type: dict
      unit:
        description: Name of a unit of systemd, for V(unit).
        type: str
      host:
        description: Name or address, for V(dns), V(tcp), V(certificate), V(postgres), V(redis).
        type: str
      port:
        description: Port, for V(tcp), V(certificate), V(postgres), V(redis).
        type: int
      addresses:
        description: Addresses that the name must resolve to, for V(dns).
        type: list
        elements: str
      server_name:
        description: Host name that the certificate must be for, for V(certificate); O(checks[].host) when left out.
        type: str
      ca_path:
        description: File of the authorities that are trusted instead of those of the system.
        type: str
      url:
        description: Address to ask, for V(http), V(https_redirect), V(csrf), V(rate_limit), V(prometheus). It is shown.
        type: str
      method:
        description: V(GET), V(HEAD) or V(OPTIONS), for V(http).
        type: str
      status:
        description: HTTP statuses that are right, for V(http).
        type: list
        elements: int
      expect:
        description: Dotted JSON paths of the body and the values that they must have, for V(http).
        type: dict
      body:
        description: Regular expression that must be found in the body, for V(http).
        type: str
      headers:
        description: Request headers.
        type: dict
      secret_headers:
        description: Request headers that are never shown.
        type: dict
      expect_headers:
        description: Answer headers and the regular expressions that must be found in them, for V(http).
        type: dict
      version:
        description: Version that must answer, for V(http).
        type: str
      versions:
        description: Versions of which any may answer, for V(http).
        type: list
        elements: str
      version_path:
        description: Dotted JSON path of the version in the body, for V(http).
        type: str
      validate_certs:
        description: Whether the certificate must be trusted and fit the name.
        type: bool
      samples:
        description:
          - How many requests, one after the other, for V(http).
          - V(10) when a limit is about milliseconds, otherwise V(1).
        type: int
      interval_ms:
        description: Milliseconds between them, for V(http).
        type: int
      security_headers:
        description: Answer headers that must be there with any value, for V(http).
        type: list
        elements: str
      numbers:
        description:
          - Names of more that is measured, with their unit, and where they are in the JSON of the answer, for V(http).
          - Of several values the largest.
        type: dict
      state_change:
        description: V(POST), V(PUT), V(PATCH) or V(DELETE), sent without a token and a body, for V(csrf).
        type: str
      rejected_with:
        description: HTTP statuses that reject it, for V(csrf).
        type: list
        elements: int
      burst:
        description: How many requests are sent, ten at once, for V(rate_limit). More than the limit of the server.
        type: int
      recovery_seconds:
        description: Seconds within which it must answer again, for V(rate_limit).
        type: float
      uri:
        description:
          - Server, user, password and database in one, like V(postgresql://user:password@host:5432/name) or
            V(rediss://:password@host:6379), for V(postgres) and V(redis). It is never shown.
        type: str
      socket_directory:
        description: Directory of the unix socket, for V(postgres).
        type: str
      socket_path:
        description: Path of the unix socket, for V(redis).
        type: str
      database:
        description: Name of the database, for V(postgres).
        type: str
      user:
        description: Whom to log in as, for V(postgres), V(redis) and V(prometheus).
        type: str
      password:
        description: Password for V(postgres), V(redis) and V(prometheus). It is never shown.
        type: str
      token:
        description: Bearer token for V(prometheus). It is never shown.
        type: str
      ssl_mode:
        description: C(sslmode) of libpq, for V(postgres).
        type: str
      write:
        description: Whether something is written and read again, for V(postgres) and V(redis). V(true) by default.
        type: bool
      query:
        description:
          - One statement that is timed in a transaction that can only read, for V(postgres).
          - What V(prometheus) is asked; it must give one number.
        type: str
      tls:
        description: Whether V(redis) is asked over TLS.
        type: bool
      format:
        description: V(junit), V(cobertura), V(sarif) or V(lighthouse), for V(report).
        type: str
"""

EXAMPLES = r"""
- name: Before a deploy
  signalbox.runbook.check_info:
    checks:
      - name: disk
        check: disk
        path: /srv
        fail_when: {free_percent: "<= 20"}
      - name: database
        check: postgres
        uri: "{{ database_url }}"
      - name: certificate
        check: certificate
        host: shop.example.com
        fail_when: {days_left: "<= 30"}
        source: runbook 004, infrastructure
      - name: api
        check: http
        url: https://shop.example.com/api/health
        expect: {status: healthy}
        fail_when: {p95_ms: "> 200"}
  register: before

- name: Stop when something is bad, or not known
  ansible.builtin.assert:
    that: before.checks | rejectattr("status", "in", ["pass", "warn"]) | list == []
"""

RETURN = r"""
checks:
  description: One result per check, in their order.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: What the check is called.
      type: str
      returned: always
    check:
      description: Its kind.
      type: str
      returned: always
    status:
      description: V(pass), V(warn), V(fail), or V(missing) when it could not be measured.
      type: str
      returned: always
    measured:
      description: What was measured by name, and what else was learned.
      type: dict
      returned: always
      sample: {free_percent: 12.1, free_bytes: 5368709120, free_inodes_percent: 93.2}
    text:
      description: One line, what was measured and which limit was met.
      type: str
      returned: always
      sample: "/: free 12.1 % <= 20 %"
    limit:
      description: The limit that was met; otherwise those that would have failed it.
      type: str
      returned: always
      sample: free_percent <= 20
    source:
      description: Where that limit comes from.
      type: str
      returned: always
      sample: default of check disk
    advice:
      description: What to do; empty when passed.
      type: str
      returned: always
    blocking:
      description: O(checks[].blocking).
      type: bool
      returned: always
    weight:
      description: O(checks[].weight).
      type: float
      returned: always
    remedied:
      description: Whether its remedy was run, or begun.
      type: bool
      returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import OPTIONS, ask_all, mend, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems

ARGUMENTS: dict[str, dict[str, Any]] = {
    "checks": {"type": "list", "elements": "dict", "required": True, "options": OPTIONS},
    "mend": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = [{key: value for key, value in raw.items() if value is not None} for raw in module.params["checks"]]
    problems = Problems()
    try:
        checks = parse(given, "checks", problems)
        if problems:
            raise RunbookError(". ".join(problems), problems=list(problems))
        world = World()
        results = ask_all(checks, world)
        if module.params["mend"] and not module.check_mode:
            results = mend(checks, results, world)
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)
    module.exit_json(
        changed=any(result.remedied for result in results), checks=[result.to_dict() for result in results]
    )


if __name__ == "__main__":
    main()
