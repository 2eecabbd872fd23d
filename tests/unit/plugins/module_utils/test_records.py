# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _records
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.plugin_utils._controller import specs
from hypothesis import given
from hypothesis import strategies as st


def version(letter):
    """Release ``B`` is of version 2; ``B2`` is another build of it."""
    return str("ABCDEFGHIJ".index(letter[0]) + 1)


def place(letter, slot):
    return {"release": letter, "version": version(letter), "slot": slot}


def history(text):
    """Records out of words: ``B`` deployed, ``B!`` failed, ``B?`` interrupted, ``<A`` rolled back to A, ``<A!`` not.

    The times run backwards: nothing may ever be chosen by them.
    """
    records, live = [], None
    for number, word in enumerate(text.split(), 1):
        verb = "rollback" if word.startswith("<") else "deploy"
        letter = word.strip("<!?")
        outcome = {"!": "rolled_back", "?": "interrupted"}.get(
            word[-1], "restored" if verb == "rollback" else "deployed"
        )
        slot = "blue" if live is None or live["slot"] == "green" else "green"
        record = {
            "run": number,
            "verb": verb,
            "from": live,
            "to": place(letter, slot),
            "outcome": outcome,
            "started": 5000 - number,
            "ended": 5000 - number,
        }
        records.append(record)
        if outcome in ("deployed", "restored"):
            live = record["to"]
    return records


NEVER = "there is nothing to roll back: no release of this application has ever been live here"


def nowhere(live, hint=""):
    return f"there is nothing to roll back to: {live} is live and no verified release was live before it{hint}"


@pytest.mark.parametrize(
    ("text", "previous"),
    [
        ("A B", "A"),
        ("A B C", "B"),
        ("A B! C", "A"),  # a failed one is never a target
        ("A B? C", "A"),
        ("A B C! D!", "A"),  # failed attempts after the live one don't matter
        ("A B C D! E? F!", "B"),
        ("A B A", "B"),  # redeployed: what was live before it
        ("A B A B", "A"),
        ("A A B", "A"),
        ("A B B", "A"),  # made anew in the other slot: still the one before
        ("A B C <B", "A"),  # C was left: going back again goes further back
        ("A B C <B D", "B"),  # ... and C is not chosen later either
        ("A B C <A D", "A"),
        ("A B C <B! ", "B"),  # the rollback failed: nothing was left
        ("A B C <B <C", "B"),  # rolled forward: as if nothing had happened
        ("A B C <B C", "B"),  # deployed again: verified again
        ("A B C <B C D", "C"),
        ("A B C D <B <D", "C"),
        ("A B C D <C <B", "A"),
        ("A B2 B", "B2"),  # another build of the same version is another release
    ],
)
def test_previous(text, previous):
    assert _records.choose_rollback_target(history(text)) == {"release": previous, "version": version(previous)}


@pytest.mark.parametrize(
    ("text", "wanted", "target"),
    [
        ("A B C", "1", "A"),
        ("A B C", "A", "A"),
        ("A B C", "2", "B"),
        ("A B B2 C", "2", "B2"),  # of two builds of a version the one made live last
        ("A B B2 C", "B", "B"),
        ("A B2 B C", "2", "B"),
        ("A B C! D", "2", "B"),
    ],
)
def test_named(text, wanted, target):
    assert _records.choose_rollback_target(history(text), wanted)["release"] == target


@pytest.mark.requirement("RB-28")
def test_a_rollback_of_a_rollback_goes_forward_again_by_name():
    records = history("A B C <B")
    assert _records.choose_rollback_target(records, "3")["release"] == "C"
    assert _records.choose_rollback_target(records, "C")["release"] == "C"
    records = history("A B C <B <C")
    assert _records.live(records)["release"] == "C"
    assert _records.statuses(records) == {"A": "verified", "B": "verified", "C": "verified"}
    assert _records.choose_rollback_target(records)["release"] == "B"


@pytest.mark.parametrize(
    ("text", "wanted", "sentence"),
    [
        ("", "previous", NEVER),
        ("A!", "previous", NEVER),
        ("A! B?", "1", NEVER),
        ("A", "previous", nowhere("1")),
        ("A A", "previous", nowhere("1")),
        ("A B! C?", "previous", nowhere("1")),
        ("B! A", "previous", nowhere("1")),
        ("A B <A", "previous", nowhere("1", "; to go forward again say -e rollback_to=2")),
        ("A B C <B <A", "previous", nowhere("1", "; to go forward again say -e rollback_to=2")),
        ("A B C <A", "previous", nowhere("1", "; to go forward again say -e rollback_to=3")),
        ("A B", "2", "rollback_to: 2 is what is live now; name another verified release"),
        ("A B", "B", "rollback_to: B is what is live now; name another verified release"),
        ("A B", "9.9", "rollback_to: no verified release '9.9' in the records; there are: 1"),
        ("A", "9.9", "rollback_to: no verified release '9.9' in the records; there are: none"),
        ("A B C!", "3", "rollback_to: no verified release '3' in the records; there are: 1"),
        ("A B C?", "C", "rollback_to: no verified release 'C' in the records; there are: 1"),
        (
            "A B C D E F G H",
            "9.9",
            "rollback_to: no verified release '9.9' in the records; there are: 7, 6, 5, 4, 3 and 2 more",
        ),
    ],
)
def test_nowhere_to_go(text, wanted, sentence):
    with pytest.raises(RunbookError) as caught:
        _records.choose_rollback_target(history(text), wanted)
    assert str(caught.value) == sentence


def test_live_and_statuses():
    assert _records.live([]) is None
    assert _records.live(history("A!")) is None
    assert _records.live(history("A B C!")) == place("B", "green")
    assert _records.live(history("A B <A")) == place("A", "blue")
    assert _records.statuses(history("A B! C? D E <D")) == {
        "A": "verified",
        "B": "failed",
        "C": "interrupted",
        "D": "verified",
        "E": "left",
    }


def test_a_failed_attempt_does_not_unmake_a_verified_release():
    assert _records.statuses(history("A B A!"))["A"] == "verified"
    assert _records.choose_rollback_target(history("A B A!"))["release"] == "A"
    assert _records.statuses(history("A! A"))["A"] == "verified"


def test_a_release_is_not_left_by_going_to_itself():
    """A rollback that only settles a run that did not end goes from the live release to the live release."""
    records = history("A B C?")
    records.append({**records[1], "run": 4, "verb": "rollback", "from": place("B", "green"), "outcome": "restored"})
    assert _records.statuses(records)["B"] == "verified"
    assert _records.choose_rollback_target(records)["release"] == "A"
    later = {**records[-1], "run": 5, "verb": "deploy", "to": place("D", "blue"), "outcome": "deployed"}
    assert _records.choose_rollback_target([*records, later])["release"] == "B"


def test_verified_is_each_once_and_the_last_first():
    assert [r["release"] for r in _records.verified(history("A B C! A D? E <A"))] == ["A", "E", "B"]


# -- what may be removed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "present", "keep", "more", "removed"),
    [
        ("A B C D E F G", "ABCDEFG", 5, {}, "AB"),
        ("A B C", "ABC", 5, {}, ""),
        ("A B C D", "ABCD", 2, {}, "AB"),
        ("A B C D", "ABCD", 1, {}, "AB"),  # the previous one stays although keep is 1
        ("A B C D", "ABCD", 0, {}, "AB"),
        ("A B! C! D! E", "ABCDE", 2, {}, "BCD"),  # failed ones are not counted and go
        ("A B C! D! E! F!", "ABCDEF", 2, {}, "CDEF"),  # failed ones newer than the good ones don't push them out
        ("A B C? D", "ABCD", 3, {}, "C"),
        ("A B C D <C", "ABCD", 1, {}, "AD"),  # live is C, previous is B; what was left goes when it must
        ("A B C D <C", "ABCD", 2, {}, "A"),  # live C, left D are the two made live last; previous is B
        ("A B C D <A", "ABCD", 1, {}, "BCD"),
        ("A B C D A", "ABCD", 2, {}, "BC"),  # never by age of the release: A was made live last
        ("A B C D", "ABCD", 1, {"pinned": ["A"]}, "B"),  # by id
        ("A B C D", "ABCD", 1, {"pinned": ["2"]}, "A"),  # by version
        ("A B B2 C D", ["A", "B", "B2", "C", "D"], 1, {"pinned": ["2"]}, "A"),  # every build of a pinned version
        ("A B! C D", "ABCD", 1, {"pinned": ["2"]}, "A"),  # even a failed one, when asked for
        ("A B C D", "ABCD", 1, {"in_slots": ["A"]}, "B"),
        ("A B C D", "CD", 1, {}, ""),  # what is gone can't go again
        ("A B C D", ["A", "D", "stray"], 1, {}, ["A", "stray"]),  # made by us but never recorded
        ("", "AB", 5, {}, "AB"),  # nothing was ever live: leftovers
        ("A!", "A", 5, {"in_slots": ["A"]}, ""),
        ("A", "A", 1, {}, ""),
    ],
)
def test_prune(text, present, keep, more, removed):
    assert _records.prune(history(text), list(present), keep, **more) == list(removed)


@pytest.mark.requirement("REL-08")
def test_the_default_keeps_five_and_always_the_current_and_the_previous():
    keep = specs()["app_"]["app_keep_releases"]["default"]
    records = history("A B C D E F G H")
    assert keep == 5
    assert _records.prune(records, list("ABCDEFGH"), keep) == ["A", "B", "C"]
    far_back = history("A B C D E F G H <B")  # the previous one of B is older than all that are counted
    assert "A" not in _records.prune(far_back, list("ABCDEFGH"), 1)
    assert "B" not in _records.prune(far_back, list("ABCDEFGH"), 1)


LETTERS = st.sampled_from("ABCDEFGHIJ")


@st.composite
def histories(draw):
    """What runs can really leave: rollbacks only go where the records allow."""
    words = []
    for _i in range(draw(st.integers(0, 20))):
        text = " ".join(words)
        kind = draw(st.sampled_from(["deploy", "deploy", "failed", "interrupted", "previous", "named"]))
        letter = draw(LETTERS)
        if kind in ("previous", "named"):
            try:
                target = _records.choose_rollback_target(history(text), "previous" if kind == "previous" else letter)
            except RunbookError:
                continue
            words.append("<" + target["release"] + draw(st.sampled_from(["", "", "!"])))
        else:
            words.append(letter + {"deploy": "", "failed": "!", "interrupted": "?"}[kind])
    return " ".join(words)


@given(histories(), st.lists(LETTERS, unique=True), st.integers(0, 6), st.lists(LETTERS), st.lists(LETTERS, max_size=2))
def test_prune_never_takes_what_is_needed(text, present, keep, pinned, in_slots):
    records = history(text)
    pinned_versions = [version(letter) for letter in pinned[:1]]
    removed = _records.prune(records, present, keep, [*pinned, *pinned_versions], in_slots)
    assert set(removed) <= set(present)
    assert len(set(removed)) == len(removed)
    assert not set(removed) & {*pinned, *in_slots}
    live = _records.live(records)
    verified = [release["release"] for release in _records.verified(records)]
    if live:
        assert live["release"] not in removed
        try:
            assert _records.choose_rollback_target(records)["release"] not in removed
        except RunbookError as error:
            assert "nothing to roll back to" in str(error)
    assert not set(removed) & set(verified[:keep])
    # ... and takes all the rest: a second time there is nothing left to take.
    rest = [release for release in present if release not in removed]
    assert _records.prune(records, rest, keep, [*pinned, *pinned_versions], in_slots) == []


@given(histories(), st.sampled_from(["previous", *"ABCDEFGHIJ", *map(str, range(1, 11))]))
def test_a_target_was_verified_and_is_not_live(text, wanted):
    records = history(text)
    try:
        target = _records.choose_rollback_target(records, wanted)
    except RunbookError as error:
        assert str(error).startswith(("there is nothing to roll back", "rollback_to: "))
        return
    assert target["release"] != _records.live(records)["release"]
    good = [r for r in records if r["outcome"] in ("deployed", "restored") and r["to"]["release"] == target["release"]]
    assert good
    if wanted == "previous":
        assert _records.statuses(records)[target["release"]] == "verified"
    else:
        assert wanted in target.values()


@given(histories())
def test_going_back_again_and_again_ends_and_never_returns(text):
    records = history(text)
    seen = []
    while True:
        try:
            target = _records.choose_rollback_target(records)
        except RunbookError:
            break
        assert target["release"] not in seen
        seen.append(target["release"])
        live = _records.live(records)
        to = {**target, "slot": "blue"}
        records.append({"run": 99, "verb": "rollback", "from": live, "to": to, "outcome": "restored"})
    assert len(seen) <= 10


@given(histories())
def test_an_undone_rollback_changes_no_choice(text):
    """Back and forward again: the live release and the previous one are what they were."""
    records = history(text)
    try:
        target = _records.choose_rollback_target(records)
    except RunbookError:
        return
    live = _records.live(records)
    back = {"run": 98, "verb": "rollback", "from": live, "to": {**target, "slot": "x"}, "outcome": "restored"}
    forward = _records.choose_rollback_target([*records, back], live["release"])
    assert forward["release"] == live["release"]
    again = {"run": 99, "verb": "rollback", "from": back["to"], "to": live, "outcome": "restored"}
    assert _records.choose_rollback_target([*records, back, again]) == target


def test_thousands_of_records():
    records = [
        {
            "run": i,
            "verb": "deploy",
            "from": {"release": f"r{i - 1}", "version": f"1.{i - 1}", "slot": "blue"},
            "to": {"release": f"r{i}", "version": f"1.{i}", "slot": "green"},
            "outcome": "rolled_back" if i % 7 == 3 else "deployed",
            "reason": "x" * 100,
        }
        for i in range(5000)
    ]
    assert _records.live(records)["release"] == "r4999"
    assert _records.choose_rollback_target(records)["release"] == "r4998"
    assert _records.choose_rollback_target(records, "1.18")["release"] == "r18"
    with pytest.raises(RunbookError, match=r"no verified release '1.17' .* 1.4993 and 4280 more"):
        _records.choose_rollback_target(records, "1.17")
    removed = _records.prune(records, [f"r{i}" for i in range(5000)], 5)
    assert len(removed) == 4995
    assert {"r4999", "r4998"}.isdisjoint(removed)
    short = _records.brief(records, 20)
    assert len(short) == 5000
    assert [set(record) for record in short[4979:4981]] == [
        {"run", "verb", "from", "to", "outcome"},
        {"run", "verb", "from", "to", "outcome", "reason"},
    ]
    # The short records choose as the whole ones do.
    assert _records.choose_rollback_target(short) == _records.choose_rollback_target(records)
    assert _records.prune(short, removed, 5) == removed


@pytest.mark.parametrize("recent", [0, 1, 3, 10])
def test_brief_keeps_the_latest_whole(recent):
    records = history("A B C")
    short = _records.brief(records, recent)
    assert [record == whole for record, whole in zip(short, records)] == [i >= 3 - recent for i in range(3)]
