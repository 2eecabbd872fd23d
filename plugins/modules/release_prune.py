# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_prune
short_description: Remove releases from a target
author:
  - The signalbox.runbook authors (@signalbox)
version_added: 0.1.0
description:
  - Removes the named releases below O(home). Each disappears by one rename before its files are deleted.
  - Only releases with a readable manifest are removed. Anything else is not ours and makes the task fail before
    anything is removed.
attributes:
  check_mode:
    support: full
    description: Predicts what would be removed.
  diff_mode:
    support: full
    description: Shows the releases that are there before and after.
options:
  home:
    description: Directory of the application on the target.
    type: path
    required: true
  fence:
    description: Fencing number of the run's lease. A number lower than the highest seen on the host is refused.
    type: int
    required: true
  remove:
    description: Ids of the releases to remove. Those that are not there are passed over.
    type: list
    elements: str
    required: true
  keep:
    description: Ids that must stay, such as those that slots run. The task fails when one of them is in O(remove).
    type: list
    elements: str
    default: []
seealso:
  - module: signalbox.runbook.release
"""

EXAMPLES = r"""
- name: Remove an old release
  signalbox.runbook.release_prune:
    home: /srv/shop
    fence: 14
    remove: [2.3.0-77aa01c4]
    keep: [2.4.1-9c56cc51, 2.4.0-0d4be1f2]
"""

RETURN = r"""
removed:
  description: Ids of the releases that were (in check mode, would be) removed.
  returned: success
  type: list
  elements: str
  sample: [2.3.0-77aa01c4]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._release import changing, manifests, remove

ARGUMENTS = {
    "home": {"type": "path", "required": True},
    "fence": {"type": "int", "required": True},
    "remove": {"type": "list", "elements": "str", "required": True},
    "keep": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    home = Path(module.params["home"])
    try:
        with changing(home, module.params["fence"], check=module.check_mode):
            before = [release["id"] for release in manifests(home)[0]]
            removed = remove(home, module.params["remove"], module.params["keep"], check=module.check_mode)
    except RunbookError as exc:
        module.fail_json(msg=str(exc), **exc.details)
    after = [release_id for release_id in before if release_id not in removed]
    module.exit_json(
        changed=bool(removed), removed=removed, diff={"before": {"releases": before}, "after": {"releases": after}}
    )


if __name__ == "__main__":
    main()
