# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A world of plain data in which the engine carries plans out, and which says when something forbidden is done."""

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import (
    _engine,
    _model,
    _plan,
    _records,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.plugin_utils._controller import specs

SPECS = specs()
TARGETS, ROUTERS = ("web1", "web2"), ("lb1", "lb2")
SECRET = "s3cr3t-Value"


def models(version, targets=TARGETS, exclusive=(), **more):
    """``exclusive`` are the names of workers beside the two services that always are."""
    found = {}
    services = [("frontend", 3002), ("backend", 3001), *((name, 3003 + i) for i, name in enumerate(exclusive))]
    for number, host in enumerate((*targets, *ROUTERS, "st1"), 1):
        values = {
            "app_name": "clickview",
            "app_environment": "production",
            "app_version": version,
            "app_address": f"10.0.0.{number}",
            "app_home": "/srv/clickview",
            "app_state_dir": "/var/lib/clickview",
            "app_url": "http://app.test",
            "watch_seconds": 60,
            "app_services": [
                {
                    "name": name,
                    "port": port,
                    "artifact": {"python": ["clickview==1.0"]},
                    "command": f"serve {version}",
                    "secrets": {"KEY": SECRET},
                    "files": {"app.ini": f"key={SECRET}"},
                    "health": {"path": "/health"},
                    "version": {"path": "/version"},
                    "routed": name == "frontend",
                    "exclusive": name in exclusive,
                    "depends_on": ["backend"] if name == "frontend" else [],
                    "start_seconds": 20,
                    "stop_seconds": 5,
                    "drain_seconds": 10,
                }
                for name, port in services
            ],
            **more,
        }
        found[host], problems = _model.load(values, SPECS, "deploy")
        assert list(problems) == []
    return found


MODELS = {f"{number}.0": models(f"{number}.0") for number in range(1, 7)}
ANSWERS = {version: _model.answers(one["web1"]) for version, one in MODELS.items()}
IDS = {
    version: _model.release_id(version, [_model.release_digest(one[host]) for host in TARGETS])
    for version, one in MODELS.items()
}


def place(version, slot):
    return {"release": IDS[version], "version": version, "answers": ANSWERS[version], "slot": slot}


class CrashError(Exception):
    pass


class World:
    """Targets with releases and slots, routers with weights, a journal of lists."""

    def __init__(self, targets=TARGETS, **settings):
        self.names = list(targets)
        self.settings = settings  # of the model, for every run
        self.least = len(targets)  # targets that had traffic at the worst moment, once there was a release
        self.targets = {host: {"releases": [], "slots": {"blue": None, "green": None}} for host in targets}
        self.shares = {host: {} for host in ROUTERS}  # router to (target, slot) to weight
        self.history, self.runs, self.fence = [], {}, 0
        self.until_crash = None
        self.unclear = ()  # steps whose answer is neither good nor bad

    # -- what is looked at --

    @property
    def weights(self):
        """Weight per slot of each router, the highest of its targets."""
        found = {}
        for router, shares in self.shares.items():
            found[router] = {}
            for (_target, slot), weight in shares.items():
                if weight:
                    found[router][slot] = max(found[router].get(slot, 0), weight)
        return found

    def send(self, router, weights):
        """Somebody's hand at a router."""
        self.shares[router] = {(target, slot): weight for target in self.names for slot, weight in weights.items()}

    def has_traffic(self, target, slot):
        return any(shares.get((target, slot)) for shares in self.shares.values())

    def info(self):
        targets = copy.deepcopy(self.targets)
        for info in targets.values():
            for slot in filter(None, info["slots"].values()):
                slot["exclusive"] = {name: name in slot["services"] for name in self.exclusive}
        return targets, {host: self._router(host) for host in ROUTERS}

    @property
    def exclusive(self):
        return set(self.settings.get("exclusive", ()))

    def _alone(self):
        """What is exclusive runs in one slot of a target at most."""
        for target, info in self.targets.items():
            blue, green = ((slot or {"services": set()})["services"] for slot in info["slots"].values())
            assert not blue & green & self.exclusive, f"{blue & green & self.exclusive} in both slots of {target}"

    def _router(self, host):
        weights = {slot: weight for slot, weight in self.weights[host].items() if weight}
        answers = []
        for slot in weights:
            there = self.targets["web1"]["slots"][slot]
            answers.append(answer(there["version"]) if there and there["running"] else answer(None, "refused"))
        shares = self.shares[host].items()
        below = [f"{target} {slot}" for (target, slot), weight in shares if weight < weights.get(slot, 0)]
        return {"weights": weights, "below": below, "answers": answers[:1]}

    def read(self):
        finished = {record["run"] for record in self.history}
        unfinished = [{"run": n, "events": list(events)} for n, events in self.runs.items() if n not in finished]
        return {"now": 100, "lease": None, "fence": self.fence, "history": self.history, "unfinished": unfinished}

    # -- what is done --

    def crash_point(self):
        if self.until_crash is not None:
            self.until_crash -= 1
            if self.until_crash < 0:
                raise CrashError

    def do(self, step, bad=None):
        """The step on its hosts, one after another; ``bad`` fails. A crash may come between any two hosts."""
        outcomes = {}
        for host in step["hosts"]:
            self.crash_point()
            outcome = {"step": step["id"], "result": {"failed": False, "changed": True}}
            outcome["result"]["attention"] = step["id"] in self.unclear
            if host == bad:
                outcome["result"] = {"failed": True, "msg": "would not"}
            if host != bad or step["verb"] == "start":  # a slot that failed to start stands there half
                getattr(self, "_" + step["verb"])(host, step["args"][host], host == bad)
            outcomes[host] = outcome
        self.crash_point()
        return outcomes

    def _stage(self, host, args, _bad):
        present = {release["id"] for release in self.targets[host]["releases"]}
        assert args["present"] == (args["release"]["id"] in present)
        if not args["present"]:
            self.targets[host]["releases"].append({"id": args["release"]["id"]})

    def _start(self, host, args, bad):
        assert args["slot"] != args["live_slot"]
        names = {service["name"] for service in args["services"]}
        assert args["release"]["id"] in {release["id"] for release in self.targets[host]["releases"]}
        if "only" in args:
            slot = self.targets[host]["slots"][args["slot"]]
            assert slot["release"] == args["release"]["id"] and set(args["only"]) <= names & self.exclusive
            slot["services"] |= set() if bad else set(args["only"])
        else:
            assert not self.has_traffic(host, args["slot"]), "a slot with traffic is touched"
            self.targets[host]["slots"][args["slot"]] = {
                "release": args["release"]["id"],
                "version": args["release"]["version"],
                "running": not bad,
                "services": names,
                "answers": [],
            }
        self._alone()

    def _retire(self, host, args, _bad):
        assert args["slot"] != args["live_slot"]
        if "only" in args:
            assert set(args["only"]) <= self.exclusive
            slot = self.targets[host]["slots"][args["slot"]] or {"services": set()}
            slot["services"] -= set(args["only"])
            return
        assert not self.has_traffic(host, args["slot"]), "a slot with traffic is stopped"
        self.targets[host]["slots"][args["slot"]] = None

    def _shift(self, host, args, _bad):
        addresses = {f"10.0.0.{number}": target for number, target in enumerate(self.names, 1)}
        shares = {(addresses[m["address"]], m["slot"]): m["weight"] for m in args["upstreams"][0]["members"]}
        assert set(shares) == {(target, slot) for target in self.names for slot in ("blue", "green")}
        answering = set()
        for (target, slot), weight in shares.items():
            there = self.targets[target]["slots"][slot]
            assert not weight or (there and there["running"]), f"traffic for {slot} of {target}, which does not run"
            if weight:
                answering.add(there["version"])
        asked = {version for probe in args["confirm"] for version in probe["versions"]}
        assert answering <= asked if answering else not asked, "what is asked for is not what answers"
        self.shares[host] = shares
        if _records.live(self.history):
            self.least = min(self.least, len({target for (target, _slot), weight in shares.items() if weight}))
        assert self.weights[host] == {slot: weight for slot, weight in args["note"]["weights"].items() if weight}

    def _main(self, _host, args, _bad):
        assert args["seconds"] > 0

    def _verify(self, host, args, _bad):
        slot = self.targets[host]["slots"][args["slot"]]
        assert slot["running"] and slot["release"] == args["release"]["id"]
        assert {service["name"] for service in args["services"]} <= slot["services"]

    def _prune(self, host, args, _bad):
        info = self.targets[host]
        held = {slot["release"] for slot in info["slots"].values() if slot}
        assert not held & set(args["remove"])
        info["releases"] = [release for release in info["releases"] if release["id"] not in args["remove"]]
        assert {release["id"] for release in info["releases"]} == set(args["keep"])

    # -- a run --

    def plan(self, verb, version=None, wanted="previous", **more):
        targets, routers = self.info()
        read = self.read()
        request = {"verb": verb, "version": version, "reason": f"{verb} it"}
        if verb != "deploy":
            request["to"] = _plan.destination(verb, read, targets, wanted)
            version = request["to"]["version"]
        more = {**self.settings, **more}
        known = not more and tuple(self.names) == TARGETS
        used = MODELS[version] if known else models(version, self.names, **more)
        return _plan.make(request, used, targets, routers, read)

    def carry_out(self, plan, bad=()):
        """``bad`` are pairs of step and host that fail. The outcome; None when there was nothing to do."""
        if not plan["steps"]:
            return None
        state, events = _engine.intent(_engine.begin(plan, 0), 0)
        self.crash_point()
        assert plan["basis"] == self.fence
        self.fence += 1
        run = max(self.runs, default=0) + 1
        self.runs[run] = [{"event": "open", "run": run, "fence": self.fence, "plan": plan, "at": 0}]
        self.runs[run] += events
        self.history += plan["settles"]
        state.update(run=run, fence=self.fence)
        while state["now"]:
            self.crash_point()
            host = dict(bad).get(state["now"]["id"])
            outcomes = self.do(state["now"], host)
            state, events = _engine.advance(state, outcomes, 1)
            self.runs[run] += events
        self.crash_point()
        self.history.append({**_engine.record(state, None, {}), "run": run, "ended": 2})
        return _engine.outcome(state)

    def go(self, verb, version=None, wanted="previous", bad=(), **more):
        return self.carry_out(self.plan(verb, version, wanted, **more), bad)

    # -- what must be true between runs --

    def serves(self):
        """(version, slot) that every router sends all traffic to."""
        assert len({json.dumps(sorted(shares.items())) for shares in self.shares.values()}) == 1
        weights = {slot: weight for slot, weight in self.weights["lb1"].items() if weight}
        if not weights:
            return None
        assert list(weights.values()) == [100]
        slot = next(iter(weights))
        standing = [info["slots"][slot] for info in self.targets.values()]
        assert all(one["running"] for one in standing)
        assert len({one["version"] for one in standing}) == 1
        assert all(self.exclusive <= one["services"] for one in standing), "a worker of the live release does not run"
        return standing[0]["version"], slot

    def agrees(self):
        live = _records.live(self.history)
        return self.serves() == (live and (live["version"], live["slot"]))


def answer(observed, problem=None):
    return {"name": "frontend version", "passed": problem is None, "observed": observed, "problem": problem}


def live_on(world, *versions):
    for version in versions:
        assert world.go("deploy", version) == "deployed"
    return world


def phases(plan, key="steps"):
    return [step["phase"] for step in plan[key]]


def weights(plan, key="steps"):
    return [next(iter(s["args"].values()))["note"]["weights"] for s in plan[key] if s["verb"] == "shift"]


def refused(call, *args, **more):
    with pytest.raises(RunbookError) as caught:
        call(*args, **more)
    return str(caught.value)


def crashed(world, at, *run, **more):
    world.until_crash = at
    try:
        world.go(*run, **more)
    except CrashError:
        return True
    finally:
        world.until_crash = None
    return False
