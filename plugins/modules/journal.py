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
  - Runs on the state host. One call reads everything, or takes, renews or releases the lease and writes what belongs
    to it, under one lock.
  - Every line is synced to disk before the call returns.
extends_documentation_fragment: [signalbox.runbook.journal]
options:
  directory:
    description:
      - Directory of the journal, one per application and environment.
      - One that does not exist is an empty journal; V(opened) makes it.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Read the journal
  signalbox.runbook.journal:
    directory: /var/lib/runbook/clickview/production
    state: read

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
  returned: when O(state) is not V(read)
  type: int
  sample: 42
fence:
  description: Fencing number of the run, which every change is made under; for V(read) the last one given out.
  returned: success
  type: int
  sample: 42
at:
  description: Time of the state host, in seconds since 1970.
  returned: when O(state) is not V(read)
  type: float
  sample: 1763683200.1
lease:
  description:
    - The lease that is held, with holder, reason, since, expires, expired; null when nobody holds one.
    - On failure, the one that is in the way.
  returned: when O(state) is V(read), or another run holds it
  type: dict
history:
  description: The records of finished runs, oldest first.
  returned: when O(state) is V(read)
  type: list
  elements: dict
notes:
  description: Statements of people, oldest first.
  returned: when O(state) is V(read)
  type: list
  elements: dict
unfinished:
  description: Runs that did not end, each with its number and events.
  returned: when O(state) is V(read)
  type: list
  elements: dict
now:
  description: Time of the state host, in seconds since 1970.
  returned: when O(state) is V(read)
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import ARGUMENTS, call, run_module


def main() -> None:
    run_module(AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True), call)


if __name__ == "__main__":
    main()
