# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of releases: what a name means is settled once, then kept. Private: may change at any time."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils._docker import Docker
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

_REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?\Z")

Part = Mapping[str, Any]  # what a manifest says of the image of one service
Manifest = Optional[Mapping[str, Any]]


def parts(manifest: Manifest) -> dict[str, Part]:
    """The services of a release that are images."""
    return {name: part for name, part in (manifest or {"services": {}})["services"].items() if "image_id" in part}


def reference(image: str, version: str, where: str = "image") -> str:
    """The image with the release's version as its tag, unless it has a tag or a digest."""
    if not _REFERENCE.match(image or ""):
        raise RunbookError(f"{where} {image!r} is no image reference such as registry.example.com/shop/api:1.3.0")
    if "@" in image or ":" in image.rpartition("/")[2]:
        return image
    if "+" in version:
        raise RunbookError(f"{where} {image!r} has no tag and the version {version!r} can't be one: give the tag")
    return f"{image}:{version}"


def kept_name(project: str, service: str, release: str) -> str:
    """A name of our own for an image, so that it stays when its tag moves or somebody prunes."""
    return f"runbook/{project}-{service}:{release.replace('+', '_')}"


def keep(docker: Docker, image_id: str, name: str) -> None:
    found = docker.image(name)
    if found is None or found.id != image_id:
        docker.call("image", "tag", image_id, name)


def fetch_again(docker: Docker, part: Mapping[str, Any], seconds: float) -> None:
    """Somebody removed an image of a release: the very same one is pulled by its digest, where it has one."""
    why = "it never had a digest of a registry"
    for digest in part["digests"]:
        why = pull_problem(docker, digest, seconds)
        if not why and docker.image(part["image_id"]) is not None:
            return
        why = why or f"{digest} is another image now"
    raise RunbookError(
        f"the image {part['reference']} ({part['image_id'][:19]}) is no longer on this host and can't be had again "
        f"({why}): build or push it, and deploy that version under a new version number"
    )


def missing(docker: Docker, manifest: Manifest) -> list[Part]:
    """The images of a release that are no longer on this host."""
    return [part for part in parts(manifest).values() if docker.image(part["image_id"]) is None]


def keep_all(docker: Docker, project: str, release: str, manifest: Manifest) -> None:
    for name, part in parts(manifest).items():
        keep(docker, part["image_id"], kept_name(project, name, release))


def settle(
    docker: Docker,
    wanted: str,
    pull: str,
    service: str,
    seconds: float,
    old: Optional[Part],
    manifests: Iterable[Manifest],
) -> dict[str, Any]:
    """What a manifest says of an image: the name that was asked for, and what it means once and for all.

    ``old`` is what the release said before it was damaged; ``manifests`` are those of all releases here.
    """
    if old:
        image_id, digests, pulled = old["image_id"], old["digests"], old["pulled"]
    else:
        image_id, digests, pulled = obtain(docker, wanted, pull, service, seconds)
    before = {part["reference"] for one in manifests for part in parts(one).values() if part["pulled"]}
    return {
        "reference": wanted,
        "image_id": image_id,
        "digests": list(digests),
        "pulled": pulled or wanted in before,
    }


def obtain(docker: Docker, wanted: str, pull: str, service: str, seconds: float) -> tuple[str, tuple[str, ...], bool]:
    """(id, digests of registries, whether it was pulled) of the image that a service is to run."""
    here = docker.image(wanted) if pull != "always" else None
    pulled = False
    if here is None and pull != "never":
        why = pull_problem(docker, wanted, seconds)
        if why:
            raise RunbookError(
                f"the image {wanted} of {service} can't be pulled: {why}. Look whether it was pushed, whether the "
                "registry answers, and whether this host is logged in there (docker login)"
            )
        here, pulled = docker.image(wanted), True
    if here is None:
        raise RunbookError(
            f"the image {wanted} of {service} is not on this host: build or load it there, or set runtime_compose_pull "
            "to missing"
        )
    return here.id, here.digests, pulled


def pull_problem(docker: Docker, reference: str, seconds: float) -> str:
    """Pull an image; why it can't be pulled, empty when it was. A registry may stop to answer in the middle."""
    try:
        code, out, err = docker.attempt("pull", "--quiet", reference, seconds=seconds)
    except RunbookError as error:
        return str(error)
    return docker.explain(err or out) if code else ""


def same(manifest: Manifest) -> dict[str, list[str]]:
    """Each image with all names of what it is: targets of one release have one in common, or it is not one release."""
    return {
        f"the image {part['reference']} of {name}": [*(d.rpartition("@")[2] for d in part["digests"]), part["image_id"]]
        for name, part in parts(manifest).items()
    }


def untag(docker: Docker, project: str, manifests: Mapping[str, Manifest], going: Collection[str]) -> list[str]:
    """Take from images the names that only the releases ``going`` of all ``manifests`` gave them; which ones."""
    staying = {
        part["reference"] for name, one in manifests.items() if name not in going for part in parts(one).values()
    }
    gone = []
    for release_id in going:
        for name, part in parts(manifests[release_id]).items():
            names = [kept_name(project, name, release_id)]
            if part["pulled"] and part["reference"] not in staying:
                found = docker.image(part["reference"])
                names += [part["reference"]] if found and found.id == part["image_id"] else []
            gone += [one for one in names if docker.untag(one)]
    return gone
