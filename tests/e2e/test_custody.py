"""Custody: who runs which disk until when, what that leaves uncovered, and projects that change hands."""

import datetime
import json
import urllib.request

import harness
from people import Person, governed


def admin(server, *words, **options):
    return server.valv("admin", *words, **options)


def admin_json(server, *words):
    return json.loads(admin(server, *words, "--json").stdout)


def cluster_events(server, tmp_path):
    """The events of the cluster's ledger: kind, subject and detail; the export has to verify."""
    path = tmp_path / "cluster.jsonl"
    path.unlink(missing_ok=True)
    server.valv("ledger", "export", "--cluster", "--out", path)
    key = server.valv("ledger", "key").stdout.strip()
    report = json.loads(harness.run(harness.binary(), "ledger", "verify", path, "--key", key, "--json").stdout)
    assert report["project"] == "0" * 32
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (line["event"]["kind"], line["names"]["subject"], json.loads(line["names"]["detail"]), line["names"]["caller"])
        for line in lines
        if line["line"] == "event"
    ]


# -- custodians and disks ----------------------------------------------------------------------------------------------


def test_custodians_own_disks_and_every_change_is_in_the_clusters_ledger(server, tmp_path):
    made = admin_json(server, "custodian", "add", "Uni A", "--contact", "a@a.example", "--contract", "7")
    admin(server, "disk", "set", "d0", "d1", "--custodian", "uni a", "--guaranteed-until", "2033-12-31", "--reason", "why")
    admin(server, "custodian", "change", made["id"], "--contact", "b@a.example")
    (uni,) = admin_json(server, "custodian", "list")
    assert (uni["contact"], uni["contract"], uni["disks"]) == ("b@a.example", "7", 2)
    disks = {disk["name"]: disk for disk in admin_json(server, "disk", "list")}
    assert disks["d0"]["guaranteed_until_micros"] == 2019600000_000000 and disks["d0"]["organisation"] == "Uni A"
    assert disks["d5"]["guaranteed_until_micros"] is None and disks["d5"]["in_pool"]

    for words, said in [
        (["custodian", "add", "UNI A"], "there is a custodian of this organisation already"),
        (["custodian", "add", ""], "must not be empty"),
        (["custodian", "remove", "Uni A", "--yes"], "this custodian has disks"),
        (["custodian", "remove", "Uni A"], "say --yes"),
        (["custodian", "change", "nobody", "--contact", "x"], "no custodian"),
        (["disk", "set", "d9", "--guaranteed-until", "2033-12-31"], "no disk"),
        (["disk", "set", "d0", "--custodian", "nobody"], "no custodian"),
        (["disk", "set", "d0", "--guaranteed-until", "soon"], "is no date"),
        (["disk", "set", "d0"], "required"),
    ]:
        refused = admin(server, *words, check=False)
        assert refused.returncode != 0 and said in refused.stderr, (words, refused.stderr)

    server.restart(kill=True)
    events = cluster_events(server, tmp_path)
    assert [kind for kind, *_ in events] == [
        "custodian created",
        "disk custody changed",
        "disk custody changed",
        "custodian changed",
    ]
    _, _, detail, caller = events[1]
    assert detail["after"]["organisation"] == "Uni A" and detail["before"] is None and detail["reason"] == "why"
    assert caller.startswith("operator on the server's socket")
    assert events[3][2]["before"]["contact"] == "a@a.example"


# -- the horizon -------------------------------------------------------------------------------------------------------


def gauges(port: int) -> dict:
    """The custody metrics by name and labels."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(("valv_horizon", "valv_disk_guarantee"))]
    return {name: float(value) for name, value in lines}


def test_the_horizon_tells_what_is_kept_beyond_its_guarantee_and_what_would_cover_it(make_server):
    port = harness.free_port()
    server = make_server(config=f'metrics = "127.0.0.1:{port}"\n[custody]\nwarn_before = "3650d"\n')
    s3 = server.s3()
    s3.create_bucket(Bucket="kept", ObjectLockEnabledForBucket=True)
    now = datetime.datetime.now(datetime.timezone.utc)
    day = lambda days: (now + datetime.timedelta(days=days)).strftime("%Y-%m-%d")  # noqa: E731
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": now + datetime.timedelta(days=1000)}
    big = harness.random_bytes(9 << 20)
    s3.put_object(Bucket="kept", Key="big", Body=big, **lock)
    s3.put_object(Bucket="kept", Key="small", Body=b"x" * 100, **lock)
    s3.put_object(Bucket="kept", Key="free", Body=b"y" * 100)
    kept = len(big) + 100

    # Nothing is guaranteed: all of it is uncovered already.
    (project,) = admin_json(server, "horizon")["projects"]
    assert (project["name"], project["kept_bytes"], project["uncovered_bytes"]) == ("default", kept, kept)
    admin(server, "custodian", "add", "Uni A")
    admin(server, "custodian", "add", "Uni B")
    admin(server, "disk", "set", "d0", "d1", "d2", "--custodian", "Uni A", "--guaranteed-until", day(300))
    admin(server, "disk", "set", "d3", "d4", "d5", "--custodian", "Uni B", "--guaranteed-until", day(2000))
    for date, uncovered in [(day(1), 0), (day(299), 0), (day(301), kept), (day(5000), kept)]:
        report = admin_json(server, "horizon", "--date", date, "--project", "default")
        assert [one["uncovered_bytes"] for one in report["projects"]] == [uncovered], date
    disks = {disk["name"]: disk for disk in report["disks"]}
    assert set(disks) == {"d0", "d1", "d2"}
    needy = [disk for disk in disks.values() if disk["extend_to"]]
    assert needy and all(disk["extend_to"][:10] == day(1000) for disk in needy)
    assert all(to["organisation"] == "Uni B" for disk in needy for to in disk["moves"])
    table = admin(server, "horizon", "--date", day(301)).stdout
    assert "prolong to" in table and day(1000) in table and "to disks of Uni B" in table

    # The gauge looks ten years ahead, and is looked at again after each change.
    harness.wait_until(lambda: gauges(port)["valv_horizon_uncovered_bytes"] == kept, "the gauge to tell of it")
    labels = [name for name in gauges(port) if 'custodian="Uni A"' in name]
    assert len(labels) == 3
    names = [disk["name"] for disk in needy]
    admin(server, "disk", "set", *names, "--guaranteed-until", day(1001))
    assert "everything is covered" in admin(server, "horizon", "--date", day(5000)).stdout
    harness.wait_until(lambda: gauges(port)["valv_horizon_uncovered_bytes"] == 0, "the gauge to fall")
    s3.put_object_legal_hold(Bucket="kept", Key="small", LegalHold={"Status": "ON"})
    report = admin_json(server, "horizon", "--date", day(5000))
    assert report["projects"][0]["uncovered_bytes"] == 100
    assert "forever" in [disk["extend_to"] for disk in report["disks"]]
    for words, said in [(["--date", "soon"], "is no date"), (["--project", "nobody"], "no such project")]:
        refused = admin(server, "horizon", *words, check=False)
        assert refused.returncode != 0 and said in refused.stderr


# -- transfers ---------------------------------------------------------------------------------------------------------

TERMS = ("--organisation", "Uni B", "--contact", "b@b.example", "--reason", "the group moves", "--reference", "12/2026")


def test_a_project_changes_hands_by_both_sides_acts_and_nobody_elses(server, tmp_path):
    ada, eva, eve = Person(server, "ada"), Person(server, "eva"), Person(server, "eve")
    root = Person(server, "root", operator=True)
    governed(server, "cohort", ada, organisation="Uni A", contact="a@a.example")
    offer = ("project", "transfer", "offer", "cohort", "--to", "eva", *TERMS)
    for person in (eva, eve, root):
        person.refused(*offer)
        person.refused("project", "transfer", "accept", "cohort", "--yes", "--offer", "0" * 32)
    refused = server.valv(*offer, check=False)
    assert refused.returncode != 0, "the operator on the socket is no controller"
    first = ada.json(*offer)
    assert (first["state"], first["from_organisation"]) == ("offered", "Uni A")
    accept = ("project", "transfer", "accept", "cohort", "--yes")
    for person in (ada, eve, root):
        person.refused(*accept, "--offer", first["offer"])
    for person in (eve, root):
        person.refused("project", "transfer", "show", "cohort")
    ada.run("project", "transfer", "withdraw", "cohort", "--reason", "a mistake")
    eva.refused(*accept, "--offer", first["offer"])
    second = ada.json(*offer)
    assert "another transfer is offered" in eva.refused(*accept, "--offer", first["offer"])
    assert eva.json("project", "transfer", "show", "cohort")["offer"] == second["offer"]

    said = eva.run(*accept, "--receipt", tmp_path / "receipt.json").stdout
    assert "you are controller of cohort" in said and "no member any more: ada" in said
    key = server.valv("ledger", "key").stdout.strip()
    harness.run(harness.binary(), "statement", "verify", tmp_path / "receipt.json", "--key", key)
    receipt = (tmp_path / "receipt.json").read_text()
    assert "Uni A" in receipt and "Uni B" in receipt and "12/2026" in receipt
    edited = tmp_path / "edited.json"
    edited.write_text(receipt.replace("Uni B", "Uni C"))
    assert harness.run(harness.binary(), "statement", "verify", edited, "--key", key, check=False).returncode != 0

    ada.refused(*offer)
    ada.refused("project", "transfer", "show", "cohort")
    shown = eva.json("project", "show", "cohort")
    assert "Uni B" in json.dumps(shown) and "Uni A" not in json.dumps(shown)
    path = tmp_path / "cohort.jsonl"
    eva.run("ledger", "export", "--project", "cohort", "--out", path)
    kinds = [line["event"]["kind"] for line in map(json.loads, path.read_text().splitlines()) if line["line"] == "event"]
    told = [kind for kind in kinds if kind.startswith("transfer")]
    assert told == ["transfer offered", "transfer withdrawn", "transfer offered", "transfer accepted"]


def test_controllers_see_the_horizon_of_their_own_project_and_nobody_elses(make_server):
    server = make_server()
    ada, eve = Person(server, "ada"), Person(server, "eve")
    governed(server, "cohort", ada)
    governed(server, "other", eve)
    report = ada.json("admin", "horizon", "--project", "cohort")
    assert report["projects"] == []
    assert "no such project" in eve.refused("admin", "horizon", "--project", "cohort")
    assert "operators" in ada.refused("admin", "horizon")
