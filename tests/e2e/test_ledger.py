"""The ledger: every change is in it, exports verify without a server, and what was changed in them is found."""

import json

import pytest

import harness


@pytest.fixture(scope="module")
def told(shared, tmp_path_factory):
    """Two exports of one ledger, with changes before, between and in them, and the key."""
    folder = tmp_path_factory.mktemp("ledger")
    s3, bucket = shared.s3(), "ledger"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="ct/0001.dcm", Body=b"slice")
    s3.copy_object(Bucket=bucket, Key="ct/0002.dcm", CopySource=f"{bucket}/ct/0001.dcm")
    export(shared, folder / "first.jsonl")
    s3.delete_object(Bucket=bucket, Key="ct/0001.dcm")
    s3.put_object_tagging(Bucket=bucket, Key="ct/0002.dcm", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    export(shared, folder / "second.jsonl")
    key = shared.valv("ledger", "key").stdout.strip()
    return folder, key


def export(server, path, **options):
    return server.valv("ledger", "export", "--project", "default", "--out", str(path), **options)


def verify(path, key, *earlier, **options):
    words = [word for file in earlier for word in ("--earlier", str(file))]
    # No data folder: the file and the key are all that is needed.
    return harness.run(harness.binary(), "ledger", "verify", path, "--key", key, "--json", *words, **options)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_change_is_an_event_with_who_what_and_how_much(told):
    folder, _ = told
    first, *events, head = lines(folder / "second.jsonl")
    assert first["line"] == "ledger" and head["line"] == "head" and head["size"] == len(events)
    changes = [event for event in events if event["names"]]
    mine = [event for event in changes if (event["names"]["subject"] or "").startswith("ct/")]
    assert [event["event"]["kind"] for event in mine] == [
        "ingestion",
        "replication",
        "deaccession",
        "metadata modification",
    ]
    assert mine[0]["event"]["bytes"] == 5
    assert mine[0]["names"]["access_key"] and mine[0]["names"]["remote"] == "127.0.0.1"
    assert mine[0]["names"]["request_id"]


def test_exports_verify_and_go_on_from_each_other(told):
    folder, key = told
    report = json.loads(verify(folder / "second.jsonl", key, folder / "first.jsonl").stdout)
    assert report["events"] == lines(folder / "second.jsonl")[-1]["size"]
    assert report["earlier_exports"] == 1


@pytest.mark.parametrize(
    "edit, found",
    [
        (lambda text: text.replace("ct/0001.dcm", "ct/0009.dcm"), "names are not those"),
        (lambda text: text.replace('"bytes":5', '"bytes":6'), "differs from its leaf"),
        (lambda text: "".join(text.splitlines(keepends=True)[:-1]), "cut off"),
        (lambda text: "".join(text.splitlines(keepends=True)[:-2] + text.splitlines(keepends=True)[-1:]), "edited"),
        (lambda text: swapped(text, 2, 3), "not numbered"),
    ],
    ids=["a name", "a length", "cut off", "an event left out", "two swapped"],
)
def test_an_edited_export_does_not_verify(told, tmp_path, edit, found):
    folder, key = told
    text = (folder / "second.jsonl").read_text()
    edited = edit(text)
    assert edited != text
    (tmp_path / "edited.jsonl").write_text(edited)
    refused = verify(tmp_path / "edited.jsonl", key, check=False)
    assert refused.returncode == 1 and found in refused.stderr


def swapped(text, one, other):
    all_lines = text.splitlines(keepends=True)
    all_lines[one], all_lines[other] = all_lines[other], all_lines[one]
    return "".join(all_lines)


def test_an_older_export_does_not_pass_for_a_newer_one_nor_another_key_for_this_one(told):
    folder, key = told
    refused = verify(folder / "first.jsonl", key, folder / "second.jsonl", check=False)
    assert refused.returncode == 1 and "events are missing" in refused.stderr
    refused = verify(folder / "first.jsonl", "ab" * 32, check=False)
    assert refused.returncode == 1 and "signed by key" in refused.stderr


def test_a_project_that_does_not_exist_has_no_ledger_and_leaves_no_file(shared, tmp_path):
    refused = shared.valv(
        "ledger", "export", "--project", "nobody", "--out", str(tmp_path / "none.jsonl"), check=False
    )
    assert refused.returncode == 1 and "project" in refused.stderr
    assert not (tmp_path / "none.jsonl").exists()
