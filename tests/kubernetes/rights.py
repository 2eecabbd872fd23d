"""Users of the cluster with just the rights that the documentation asks for, or less."""

from __future__ import annotations

import json
from typing import Any

import yaml
from kubernetes_site import Site

MADE = ["configmaps", "secrets", "services", "deployments", "poddisruptionbudgets"]
RIGHTS = [
    (["", "apps", "policy"], MADE, "get list create update delete"),
    ([""], ["pods", "events"], "get list"),
    ([""], ["pods/log", "pods/proxy"], "get"),
    (["discovery.k8s.io"], ["endpointslices"], "get list"),
]
LEASES = (["coordination.k8s.io"], ["leases"], "get create update")


def as_user(site: Site, name: str, rights: Any) -> dict[str, str]:
    """Variables with which a user with just these rights deploys."""
    rules = [{"apiGroups": groups, "resources": kinds, "verbs": verbs.split()} for groups, kinds, verbs in rights]
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    binding = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}}
    subject = {"subjects": [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}]}
    for made in ({**kind, "kind": "Role", "rules": rules}, {**kind, **binding, **subject, "kind": "RoleBinding"}):
        site.kubectl("apply", "--filename=-", namespaced=True, given=json.dumps(made))
    config = yaml.safe_load(site.kubectl("config", "view", "--raw"))
    for one in config["users"]:
        one["user"]["as"] = name
    path = site.directory / name
    path.write_text(json.dumps(config), encoding="utf-8")
    path.chmod(0o600)
    return {"runtime_kubernetes_kubeconfig": str(path)}
