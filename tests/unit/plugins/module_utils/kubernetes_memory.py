# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small cluster in memory: it answers requests as the API does (names, conflicts, resourceVersions)."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import Api, Cluster, Reached

CORE = "/api/v1/namespaces/shop"


class Memory:
    """Objects by path, with resourceVersions; ``before`` is called ahead of every change and may change things too."""

    def __init__(self):
        self.held = {}
        self.number = 0
        self.changes = []
        self.before = lambda method, path: None
        self.groups = {"policy": ["poddisruptionbudgets:PodDisruptionBudget"], "discovery.k8s.io": []}

    def api(self):
        return Api(self, "shop", Cluster("test", "https://test"), sleep=lambda _s: None)

    def put(self, path, obj):
        self.number += 1
        meta = {**obj["metadata"], "resourceVersion": str(self.number), "uid": f"u{self.number}", "generation": 1}
        self.held[path] = {**obj, "metadata": meta}
        return self.held[path]

    def __call__(self, method, path, body, headers, seconds):
        parts = urlsplit(path)
        where, query = parts.path, parse_qs(parts.query)
        given = json.loads(body) if body else {}
        if method != "GET":
            self.before(method, where)
        if where == "/version":
            return self._answer(200, {"major": "1", "minor": "20+"})
        if where.startswith("/apis/policy") and "namespaces" not in where:
            return self._answer(200, {"versions": [{"version": "v1"}], "resources": [{"kind": "PodDisruptionBudget"}]})
        if where.startswith("/apis/discovery") and "namespaces" not in where:
            return self._answer(404, {"message": "no"})
        if method == "POST":
            target = f"{where}/{given['metadata']['name']}"
            if target in self.held:
                return self._answer(409, {"kind": "Status", "message": "already exists"})
            if "dryRun" not in query:
                self.changes.append(f"POST {given['kind']} {given['metadata']['name']}")
                self.put(target, given)
            return self._answer(201, given)
        if method == "GET" and where.rsplit("/", 1)[1] in (
            "configmaps",
            "secrets",
            "pods",
            "services",
            "deployments",
            "events",
            "poddisruptionbudgets",
            "endpointslices",
        ):
            wanted = dict(one.split("=") for one in query.get("labelSelector", [""])[0].split(",") if one)
            items = [o for p, o in self.held.items() if p.rsplit("/", 1)[0] == where]
            return self._answer(
                200, {"items": [o for o in items if wanted.items() <= o["metadata"].get("labels", {}).items()]}
            )
        there = self.held.get(where)
        if there is None:
            return self._answer(404, {"kind": "Status", "message": "not found"})
        if method == "PUT":
            if given["metadata"].get("resourceVersion") not in (None, there["metadata"]["resourceVersion"]):
                return self._answer(409, {"kind": "Status", "message": "the object has been modified"})
            self.changes.append(f"PUT {given['kind']} {given['metadata']['name']}")
            return self._answer(200, self.put(where, given))
        if method == "DELETE":
            self.changes.append(f"DELETE {there['kind']} {there['metadata']['name']}")
            del self.held[where]
            if there["kind"] == "Deployment":
                label = there["metadata"]["labels"]
                for p in [
                    p
                    for p, o in self.held.items()
                    if o["kind"] == "Pod" and o["metadata"]["labels"][objects.SLOT] == label[objects.SLOT]
                ]:
                    del self.held[p]
        return self._answer(200, there)

    @staticmethod
    def _answer(status, document):
        return Reached(status, {"Content-Type": "application/json"}, json.dumps(document).encode())
