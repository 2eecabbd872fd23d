# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journal_info
short_description: What the journal says, and who holds the lease
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Reads the journal on the state host. Changes nothing.
options:
  directory:
    description: Directory of the journal. One that does not exist is an empty journal.
    type: path
    required: true
  wait_seconds:
    description: How long to wait for another run's lease to end, in seconds.
    type: float
    default: 0
  recent:
    description: Number of latest records that are returned whole. Older ones have only what choosing a release needs.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Read the journal
  signalbox.runbook.journal_info:
    directory: /var/lib/runbook/clickview/production
"""

RETURN = r"""
lease:
  description: The lease that is held, with holder, reason, since, expires, expired; null when nobody holds one.
  returned: success
  type: dict
fence:
  description: The last fencing number given out.
  returned: success
  type: int
  sample: 41
history:
  description: The records of finished runs, oldest first.
  returned: success
  type: list
  elements: dict
unfinished:
  description: Runs that did not end, each with its number and events.
  returned: success
  type: list
  elements: dict
now:
  description: Time of the state host, in seconds since 1970.
  returned: success
  type: float
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import Journal
from ansible_collections.signalbox.runbook.plugins.module_utils._records import brief


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "wait_seconds": {"type": "float", "default": 0},
            "recent": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    try:
        read = Journal(Path(module.params["directory"])).read(module.params["wait_seconds"])
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the journal in {module.params['directory']} cannot be read: {error}")
    module.exit_json(changed=False, **{**read, "history": brief(read["history"], module.params["recent"])})


if __name__ == "__main__":
    main()
