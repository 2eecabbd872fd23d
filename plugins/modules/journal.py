# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journal
short_description: Lease and journal of the runs that change an application
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Runs on the state host. One call takes, renews or releases the lease and writes what belongs to it, under one lock.
  - Every line is synced to disk before the call returns.
options:
  directory:
    description: Directory of the journal, one per application and environment. Made when absent.
    type: path
    required: true
  state:
    description:
      - V(opened) takes the lease, begins a run and appends O(events).
      - It fails, naming holder, reason and since when, while another run holds the lease.
      - V(written) appends O(events) and renews the lease. It fails when the lease was taken over.
      - V(renewed) only renews the lease.
      - V(closed) appends O(events), adds O(record) to the history and releases the lease.
    type: str
    required: true
    choices: [opened, written, renewed, closed]
  ttl_seconds:
    description: Time after which the lease ends unless renewed, in seconds.
    type: float
    default: 60
  run:
    description: Number of the run, as V(opened) returned it.
    type: int
    default: 0
  fence:
    description: Fencing number of the run, as V(opened) returned it.
    type: int
    default: 0
  holder:
    description: Who runs it. Kept in the lease.
    type: dict
    default: {}
  reason:
    description: Why it is run. Kept in the lease.
    type: str
    default: ""
  basis:
    description: Fencing number that the plan was made from. When another run came between, the run is refused.
    type: int
    default: 0
  dead_fence:
    description: Fencing number of a lease whose holder is known to be dead. It is taken over at once.
    type: int
    default: 0
  plan:
    description: What the run will do. Kept with the run.
    type: dict
    default: {}
  settled:
    description: Records of runs that did not end and that this run settles.
    type: list
    elements: dict
    default: []
  events:
    description: Intents and results.
    type: list
    elements: dict
    default: []
  record:
    description: The deployment record.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Nothing is written and RV(run) is 0.
  diff_mode:
    support: none
    description: A journal only grows.
"""

EXAMPLES = r"""
- name: Take the lease
  signalbox.runbook.journal:
    directory: /var/lib/runbook/clickview/production
    state: opened
    reason: "deploy 1.3.0"
    holder: {user: anna, host: ops1}
    basis: 41
"""

RETURN = r"""
run:
  description: Number of the run.
  returned: success
  type: int
  sample: 42
fence:
  description: Fencing number of the run. Every change is made under it.
  returned: success
  type: int
  sample: 42
at:
  description: Time of the state host, in seconds since 1970.
  returned: success
  type: float
  sample: 1763683200.1
lease:
  description: The lease that is in the way.
  returned: when another run holds it
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import Journal


def change(journal: Journal, given: dict[str, Any]) -> dict[str, Any]:
    if given["state"] == "opened":
        return journal.open(
            holder=given["holder"],
            reason=given["reason"],
            ttl_seconds=given["ttl_seconds"],
            basis=given["basis"],
            plan=given["plan"],
            events=given["events"],
            settled=given["settled"],
            dead_fence=given["dead_fence"],
        )
    if given["state"] == "closed":
        return journal.close(given["run"], given["fence"], given["events"], given["record"])
    return journal.write(given["run"], given["fence"], given["events"], given["ttl_seconds"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "state": {"type": "str", "required": True, "choices": ["opened", "written", "renewed", "closed"]},
            "ttl_seconds": {"type": "float", "default": 60},
            "run": {"type": "int", "default": 0},
            "fence": {"type": "int", "default": 0},
            "holder": {"type": "dict", "default": {}},
            "reason": {"type": "str", "default": ""},
            "basis": {"type": "int", "default": 0},
            "dead_fence": {"type": "int", "default": 0},
            "plan": {"type": "dict", "default": {}},
            "settled": {"type": "list", "elements": "dict", "default": []},
            "events": {"type": "list", "elements": "dict", "default": []},
            "record": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    own = {"run": given["run"], "fence": given["fence"]}
    if module.check_mode:
        module.exit_json(changed=True, at=0.0, **own)
    try:
        result = change(Journal(Path(given["directory"])), given)
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)
    except OSError as error:
        module.fail_json(msg=f"the journal in {given['directory']} cannot be written: {error}")
    module.exit_json(changed=given["state"] != "renewed", **{**own, **result})


if __name__ == "__main__":
    main()
