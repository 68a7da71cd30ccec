"""Acts that two people decide: proposing, approving, stopping, and what the ledger says of it."""

import json

import pytest

import harness
import people
from harness import wait_until

CONFIG = '[metadata]\ncooling_off = "1s"\n'


@pytest.fixture(scope="module")
def cast(module_folder):
    """A server with two operators, a controller, a stranger, and a governed project."""
    server = harness.Server(module_folder / "proposals", name="proposals", config=CONFIG).start()
    oda, olof = people.Person(server, "oda", operator=True), people.Person(server, "olof", operator=True)
    ada, eve = people.Person(server, "ada"), people.Person(server, "eve")
    people.governed(server, "cohort", ada)
    yield server, oda, olof, ada, eve
    try:
        server.assert_clean_log()
    finally:
        server.kill()


WORDS = ["--reason", "the controller has left", "--reference", "board 7/2026"]


def propose(who, user: str) -> str:
    words = ["proposal", "appoint-controller", "--project", "cohort", "--user", user, *WORDS]
    return who.json(*words)["id"]


def show(who, proposal: str, project: str = "cohort") -> dict:
    words = ["--project", project] if project else []
    return who.json("proposal", "show", proposal, *words)


def test_two_operators_appoint_a_controller_in_the_open(cast):
    server, oda, olof, ada, eve = cast
    proposal = propose(oda, "eve")
    assert "own proposal" in oda.refused("proposal", "approve", proposal, "--project", "cohort")
    assert "role" in eve.refused("proposal", "approve", proposal, "--project", "cohort")
    assert "role" in ada.refused("proposal", "approve", proposal, "--project", "cohort")
    # The socket proves no person.
    done = server.valv("proposal", "approve", proposal, "--project", "cohort", check=False)
    assert done.returncode != 0 and "must be known" in done.stderr
    olof.run("proposal", "approve", proposal, "--project", "cohort", "--reason", "checked with the faculty")
    settled = wait_until(lambda: (s := show(oda, proposal))["state"] == "carried out" and s, "the appointment")
    assert settled["facts"] == {"user": "eve"} and settled["result"] == {"controller": "eve"}
    assert [decision["user"] for decision in settled["decisions"]] == ["olof"]
    roles = {member["name"]: member["roles"] for member in ada.json("project", "member", "list", "cohort")}
    assert "controller" in roles["eve"] and "controller" in roles["ada"]


def test_a_controller_stops_what_operators_propose(cast):
    _, oda, olof, ada, _ = cast
    proposal = propose(oda, "olof")
    ada.run("proposal", "reject", proposal, "--project", "cohort", "--reason", "I am still here")
    assert show(ada, proposal)["state"] == "rejected"
    assert "settled" in olof.refused("proposal", "approve", proposal, "--project", "cohort")
    listed = ada.json("proposal", "list", "--project", "cohort", "--all")
    assert [found["id"] for found in listed][0] == proposal
    assert ada.json("proposal", "list", "--project", "cohort") == []


def test_operators_alone_get_nobody_in(cast):
    _, oda, _, ada, eve = cast
    assert "role" in oda.refused("project", "member", "add", "cohort", "oda", "--role", "controller")
    assert "operators" in eve.refused("proposal", "appoint-controller", "--project", "cohort", "--user", "eve", *WORDS)
    assert oda.refused("proposal", "appoint-controller", "--project", "cohort", "--user", "ada", *WORDS), "she is one"
    assert oda.refused("proposal", "appoint-controller", "--project", "own-ada", "--user", "eve", *WORDS), "no members"
    for words in (["--reason", "", "--reference", "x"], ["--reason", "x", "--reference", " "]):
        assert "needs both" in oda.refused(
            "proposal", "appoint-controller", "--project", "cohort", "--user", "olof", *words
        )


def test_cluster_time_moves_by_two_operators_and_never_beyond_the_clock(cast):
    _, oda, olof, ada, _ = cast
    words = ["proposal", "advance-clock", "--reason", "rested", "--reference", "board 8/2026"]
    assert "does not fit" in oda.refused(*words, "--to", "2099-01-01T00:00:00Z")
    assert "operators" in ada.refused(*words)
    assert "operators" in ada.refused("proposal", "list")


def test_two_controllers_open_where_the_project_wants_it(cast):
    server, oda, _, ada, eve = cast
    people.governed(server, "pair", ada)
    ada.run("project", "member", "add", "pair", "eve", "--role", "controller")
    words = ["user", "key", "add", "ada", "--project", "pair", "--json"]
    secret = "a-secret-of-ada-in-the-pair-0123456789"
    key = json.loads(server.valv(*words, env={"VALV_SECRET_ACCESS_KEY": secret}).stdout)["access_key_id"]
    server.s3((key, secret)).create_bucket(Bucket="slices")
    create = ["project", "opening", "create", "pair", "--bucket", "slices", "--to-user", "oda", "--action", "read"]
    create += ["--purpose", "a second opinion", "--reference", "ethics 2026/3", "--until", "2040-01-01"]
    oda.refused("project", "update", "pair", "--two-person-openings")
    ada.run("project", "update", "pair", "--two-person-openings")
    assert ada.json("project", "show", "pair")["two_person_openings"] is True
    assert "second controller" in ada.refused(*create, "--alias", "one")

    proposal = ada.json(*create, "--alias", "two", "--propose")
    assert proposal["facts"]["recipient"] == {"kind": "user", "name": "oda"} and proposal["state"] == "waiting"
    assert ada.json("project", "opening", "list", "pair") == []
    for who in (ada, oda):
        who.refused("proposal", "approve", proposal["id"], "--project", "pair")
    eve.run("proposal", "approve", proposal["id"], "--project", "pair", "--reason", "I agree")
    settled = show(eve, proposal["id"], "pair")
    assert settled["state"] == "carried out", settled
    opening = ada.json("project", "opening", "show", "pair", settled["result"]["opening"])
    assert len(opening["deciders"]) == 2 and opening["alias"] == "two"

    back = ada.json("project", "opening", "one-controller", "pair", "--reason", "few", "--reference", "board 9/2026")
    eve.run("proposal", "approve", back["id"], "--project", "pair")
    wait_until(lambda: show(ada, back["id"], "pair")["state"] == "carried out", "one controller to be enough again")
    ada.run(*create, "--alias", "three")


def test_every_word_is_in_the_project_ledger(cast, folder):
    server, _, _, ada, _ = cast
    out = folder / "cohort.jsonl"
    ada.run("ledger", "export", "--project", "cohort", "--out", out)
    events = [json.loads(line) for line in out.read_text().splitlines()]
    kinds = [event["event"]["kind"] for event in events if "event" in event]
    for kind in ("act proposed", "act approved", "act carried out", "act rejected"):
        assert kind in kinds, kinds
    details = [json.loads(event["names"]["detail"]) for event in events if (event.get("names") or {}).get("detail")]
    assert any(detail.get("reference") == "board 7/2026" for detail in details)
