"""Governed projects: what each role may do with S3, who changes members, quotas, and the date until which one is paid for."""

import concurrent.futures
import json
import threading

import pytest
from botocore.exceptions import ClientError

from harness import MIB, error_code, random_bytes, wait_until
from people import Person, governed
from test_users import SECRET, client, refusal, refused_as, user

DENIED = ("AccessDenied", 403)
ROLES = ["controller", "steward", "depositor", "reader", "auditor"]


def key_in(server, project: str, name: str, by: Person | None = None):
    """An access key of a user in a project, and its S3 client."""
    words = ["user", "key", "add", name, "--project", project, "--json"]
    env = {"VALV_SECRET_ACCESS_KEY": SECRET}
    done = by.run(*words, env=env) if by else server.valv(*words, env=env)
    return client(server, json.loads(done.stdout)["access_key_id"])


@pytest.fixture(scope="module")
def cohort(shared):
    """A governed project with one member a role, and a client for each."""
    server = shared
    ada = Person(server, "ada")
    governed(server, "cohort", ada, organisation="Uni A", contact="dpo@uni-a.example")
    clients = {"controller": key_in(server, "cohort", "ada")}
    for role in ROLES[1:]:
        user(server, "add", "--name", f"the-{role}", "--project", "elsewhere")
        ada.run("project", "member", "add", "cohort", f"the-{role}", "--role", role)
        clients[role] = key_in(server, "cohort", f"the-{role}")
    s3 = clients["controller"]
    s3.create_bucket(Bucket="data", ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="data", Key="k", Body=b"kept", Tagging="a=b")
    return server, ada, clients


def begun(s3):
    return s3.create_multipart_upload(Bucket="data", Key="big")["UploadId"]


# Operation, the roles that may, and the call.
OPERATIONS = [
    ("list buckets", "csdra", lambda s3, _: s3.list_buckets()),
    ("head bucket", "csdr", lambda s3, _: s3.head_bucket(Bucket="data")),
    ("location", "csdr", lambda s3, _: s3.get_bucket_location(Bucket="data")),
    ("versioning", "csdr", lambda s3, _: s3.get_bucket_versioning(Bucket="data")),
    ("list", "csdr", lambda s3, _: s3.list_objects_v2(Bucket="data")),
    ("list versions", "csdr", lambda s3, _: s3.list_object_versions(Bucket="data")),
    ("list uploads", "csd", lambda s3, _: s3.list_multipart_uploads(Bucket="data")),
    ("put", "csd", lambda s3, role: s3.put_object(Bucket="data", Key=f"put-{role}", Body=b"x")),
    ("begin an upload", "csd", lambda s3, _: begun(s3)),
    ("get", "csr", lambda s3, _: s3.get_object(Bucket="data", Key="k")["Body"].read()),
    ("head", "csr", lambda s3, _: s3.head_object(Bucket="data", Key="k")),
    ("tags", "csr", lambda s3, _: s3.get_object_tagging(Bucket="data", Key="k")),
    (
        "attributes",
        "csr",
        lambda s3, _: s3.get_object_attributes(Bucket="data", Key="k", ObjectAttributes=["ObjectSize"]),
    ),
    (
        "copy",
        "cs",
        lambda s3, role: s3.copy_object(Bucket="data", Key=f"copy-{role}", CopySource={"Bucket": "data", "Key": "k"}),
    ),
    ("delete", "cs", lambda s3, role: s3.delete_object(Bucket="data", Key=f"none-{role}")),
    (
        "set tags",
        "cs",
        lambda s3, _: s3.put_object_tagging(Bucket="data", Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
    ),
    ("acl", "cs", lambda s3, _: s3.get_bucket_acl(Bucket="data")),
    (
        "set versioning",
        "cs",
        lambda s3, _: s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"}),
    ),
    (
        "hold",
        "cs",
        lambda s3, _: s3.put_object_legal_hold(Bucket="data", Key="k", LegalHold={"Status": "OFF"}),
    ),
    ("make a bucket", "cs", lambda s3, role: s3.create_bucket(Bucket=f"of-{role}")),
]


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_the_table_says_and_nothing_else(cohort, role):
    _, _, clients = cohort
    for name, may, call in OPERATIONS:
        outcome = None
        try:
            call(clients[role], role)
        except ClientError as error:
            outcome = error.response["ResponseMetadata"]["HTTPStatusCode"]
        expected = None if role[0] in may else 403
        assert outcome == expected, f"{role}: {name}"


def test_a_depositor_looks_after_uploads_of_their_own_only(cohort):
    _, _, clients = cohort
    own, others = begun(clients["depositor"]), begun(clients["steward"])
    s3 = clients["depositor"]
    s3.upload_part(Bucket="data", Key="big", UploadId=own, PartNumber=1, Body=b"x")
    assert len(s3.list_parts(Bucket="data", Key="big", UploadId=own)["Parts"]) == 1
    s3.abort_multipart_upload(Bucket="data", Key="big", UploadId=own)
    assert refusal(s3.list_parts, Bucket="data", Key="big", UploadId=others) == DENIED
    assert refusal(s3.abort_multipart_upload, Bucket="data", Key="big", UploadId=others) == DENIED
    clients["steward"].abort_multipart_upload(Bucket="data", Key="big", UploadId=others)


def test_a_policy_narrows_a_role_and_never_widens_it(cohort):
    _, _, clients = cohort
    s3 = clients["controller"]
    s3.create_bucket(Bucket="policed")
    s3.put_object(Bucket="policed", Key="k", Body=b"x")
    everything = {"Principal": "*", "Action": "s3:*", "Resource": ["arn:aws:s3:::policed", "arn:aws:s3:::policed/*"]}
    s3.put_public_access_block(
        Bucket="policed",
        PublicAccessBlockConfiguration={"BlockPublicPolicy": False, "RestrictPublicBuckets": False},
    )
    statements = [{"Effect": "Allow", **everything}]
    s3.put_bucket_policy(Bucket="policed", Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    assert refusal(clients["depositor"].get_object, Bucket="policed", Key="k") == DENIED
    assert refusal(clients["auditor"].list_objects_v2, Bucket="policed") == DENIED
    statements = [{"Effect": "Deny", **everything, "Action": "s3:GetObject"}]
    s3.put_bucket_policy(Bucket="policed", Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    assert refusal(clients["reader"].get_object, Bucket="policed", Key="k") == DENIED


def test_members_are_the_controllers_to_change_and_the_last_controller_stays(cohort):
    server, ada, _ = cohort
    user(server, "add", "--name", "mallory", "--project", "elsewhere")
    # The operator, on the server's own socket.
    done = server.valv("project", "member", "add", "cohort", "mallory", "--role", "reader", check=False)
    assert done.returncode != 0 and "operators can't" in done.stderr
    done = server.valv("user", "key", "add", "mallory", "--project", "cohort", check=False)
    assert done.returncode != 0 and "no member" in done.stderr
    done = server.valv("user", "key", "add", "ada", "--project", "cohort", check=False)
    assert done.returncode != 0 and "first access key" in done.stderr
    done = server.valv("project", "update", "cohort", "--contact", "mallory", check=False)
    assert done.returncode != 0
    assert "operators only" in ada.refused("project", "update", "cohort", "--quota-bytes", "none", "--paid-until", "none")
    assert "last controller" in ada.refused("project", "member", "remove", "cohort", "ada")
    shown = ada.json("project", "show", "cohort")
    assert shown["details"]["organisation"] == "Uni A" and shown["governed"]
    members = {member["name"]: member["roles"] for member in ada.json("project", "member", "list", "cohort")}
    assert members == {"ada": ["controller"], **{f"the-{role}": [role] for role in ROLES[1:]}}


def test_a_role_taken_away_ends_running_transfers(cohort):
    server, ada, clients = cohort
    body = random_bytes(64 * MIB)
    clients["controller"].put_object(Bucket="data", Key="large", Body=body)
    user(server, "add", "--name", "leaving", "--project", "elsewhere")
    ada.run("project", "member", "add", "cohort", "leaving", "--role", "reader")
    s3 = key_in(server, "cohort", "leaving")
    stream = s3.get_object(Bucket="data", Key="large")["Body"]
    stream.read(MIB)
    ada.run("project", "member", "add", "cohort", "leaving", "--role", "auditor")
    wait_until(lambda: refused_get(s3) == "AccessDenied", "the role to be gone")
    # Half of the body is far beyond what sockets hold; the rest never comes.
    with pytest.raises(Exception) as caught:
        for _ in range(64):
            threading.Event().wait(0.1)
            stream.read(MIB)
        raise AssertionError("the transfer went on to its end")
    assert not isinstance(caught.value, AssertionError)
    ada.run("project", "member", "remove", "cohort", "leaving")
    wait_until(lambda: refused_as(s3) == "InvalidAccessKeyId", "the key of a stranger to be refused")


def refused_get(s3) -> str | None:
    try:
        s3.head_object(Bucket="data", Key="k")
    except ClientError as error:
        return "AccessDenied" if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403 else error_code(error)
    return None


def test_a_quota_is_never_exceeded_and_a_project_past_its_date_is_read_only(cohort):
    server, _, _ = cohort
    bo = Person(server, "bo")
    governed(server, "small", bo, quota_bytes=10 * 1000 + 500)
    s3 = key_in(server, "small", "bo")
    s3.create_bucket(Bucket="bkt")

    def put(number: int) -> str:
        try:
            s3.put_object(Bucket="bkt", Key=f"k{number}", Body=bytes(1000))
        except ClientError as error:
            return error_code(error)
        return "stored"

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(put, range(40)))
    assert sorted(outcomes) == ["QuotaExceeded"] * 30 + ["stored"] * 10
    assert bo.json("project", "show", "small")["used_bytes"] == 10_000
    server.valv("project", "update", "small", "--quota-bytes", "1M", "--paid-until", "2020-01-01")
    number = outcomes.index("stored")
    assert refusal(s3.put_object, Bucket="bkt", Key="n", Body=b"") == ("AccountProblem", 403)
    assert refusal(s3.delete_object, Bucket="bkt", Key=f"k{number}") == ("AccountProblem", 403)
    assert refusal(s3.create_bucket, Bucket="other") == ("AccountProblem", 403)
    assert s3.get_object(Bucket="bkt", Key=f"k{number}")["Body"].read() == bytes(1000)
    server.valv("project", "update", "small", "--paid-until", "none")
    s3.put_object(Bucket="bkt", Key="n", Body=b"x")


def test_a_project_of_the_configuration_is_handed_to_a_controller(cohort):
    server, _, _ = cohort
    user(server, "add", "--name", "old", "--project", "legacy", "--access-key-id", "VALVLEGACY00000000")
    s3 = client(server, "VALVLEGACY00000000")
    s3.list_buckets()
    done = server.valv("project", "govern", "legacy", "--controller", "the-reader", check=False)
    assert done.returncode != 0 and "--yes" in done.stderr
    server.valv("project", "govern", "legacy", "--controller", "the-reader", "--yes")
    wait_until(lambda: refused_as(s3) == "InvalidAccessKeyId", "the key of a stranger to be refused")
