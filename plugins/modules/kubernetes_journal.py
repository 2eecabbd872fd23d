# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_journal
short_description: Lease and journal of an application, in a namespace of Kubernetes
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - What M(signalbox.runbook.journal) is for a directory, for a namespace. It keeps a Lease and ConfigMaps there, which
    are named after the application.
  - Every object is changed by compare-and-swap. The clock is that of the API server, in whole seconds.
  - The host needs kubectl, and the right to get, create and update Leases and to get, list, create, update and delete
    ConfigMaps in the namespace.
extends_documentation_fragment:
  - signalbox.runbook.cluster
  - signalbox.runbook.journal
"""

EXAMPLES = r"""
- name: Read the journal
  signalbox.runbook.kubernetes_journal:
    context: production
    namespace: shop
    application: shop
    environment: production
    state: read
"""

RETURN = r"""
run:
  description: As of M(signalbox.runbook.journal), like all that is returned.
  returned: when O(state) is not V(read)
  type: int
  sample: 42
fence:
  description: Fencing number of the run; for V(read) the last one given out.
  returned: success
  type: int
  sample: 42
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import run_module
from ansible_collections.signalbox.runbook.plugins.module_utils._journal_kubernetes import ARGUMENTS, call


def main() -> None:
    run_module(AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True), call)


if __name__ == "__main__":
    main()
