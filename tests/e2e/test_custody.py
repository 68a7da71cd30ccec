"""Custody: who runs which disk until when, what that leaves uncovered, and projects that change hands."""

import json

import harness


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
