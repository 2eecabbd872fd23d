# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventory of the pyinfra peer: the targets and the router of one lab, as BENCH_SITE describes them."""

import json
import os
from pathlib import Path

from pyinfra.connectors.local import LocalConnector

# pyinfra knows one @local host. Named ones let it do its work on all targets at once, as it does with real hosts.
LocalConnector.make_names_data = staticmethod(lambda name=None: iter([(f"@local/{name}", {}, [])]))

site = json.loads(Path(os.environ["BENCH_SITE"]).read_text(encoding="utf-8"))
shared = {key: value for key, value in site.items() if key not in ("targets", "router")}
shared["members"] = site["targets"]
# Over ssh a host is called by its address.
over_ssh = "ssh_user" in site
targets = ([(one["address"] if over_ssh else f"@local/{one['name']}", one) for one in site["targets"]], shared)
routers = ([site["router"] if over_ssh else "@local/router1"], shared)
