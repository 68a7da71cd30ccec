"""What somebody without a right tries: each attack is a row, and each must leave everything as it was and tell nothing."""

import base64
import contextlib
import datetime
import hashlib
import random
import re
import select
import threading
import time

import pytest
from botocore.exceptions import ClientError

import harness
import rawhttp
import trio
from harness import error_code, error_status, random_bytes
from rawhttp import Connection, Signer
from trio import ID, OPEN, arn, policy, statement

MIB = 1 << 20
BODY = b"what the others must not see"
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def make_bucket(main):
    """Makes buckets of main's in which nothing is blocked."""

    def make(**options):
        name = f"bucket-{random.randrange(10**12):012d}"
        main.create_bucket(Bucket=name, **options)
        main.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=OPEN)
        return name

    return make


@pytest.fixture
def bucket(make_bucket):
    return make_bucket()


def signer(name: str) -> Signer:
    return Signer(access_key=f"KEY-OF-{name.upper()}", secret_key=f"the-secret-of-{name}-0123456789")


def refused(call, code="AccessDenied", status=403):
    with pytest.raises(ClientError) as error:
        call()
    assert (error_code(error.value), error_status(error.value)) == (code, status), error.value


def outcome(call) -> str:
    try:
        call()
        return "done"
    except ClientError as error:
        return error_code(error)


def md5(body: bytes) -> dict:
    return {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}


def raw(server, who, method, path, query=(), headers=None, body=b""):
    """One request of a user's, or of nobody's."""
    if who:
        return rawhttp.request(server, method, path, query=query, headers=headers, body=body, signer=signer(who))
    with Connection(server) as connection:
        target = rawhttp.encode_path(path) + ("?" + "&".join(f"{k}={v}" for k, v in query) if query else "")
        connection.send_head(method, target, {"host": connection.host, "content-length": len(body), **(headers or {})})
        connection.send(body)
        return connection.read_response(head_only=method == "HEAD")


# -- a closed bucket -------------------------------------------------------------------------------------------------------

TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
RETENTION = b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2040-01-01T00:00:00Z</RetainUntilDate></Retention>"
HOLD = b"<LegalHold><Status>OFF</Status></LegalHold>"
COMPLETE = b'<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"%s"</ETag></Part></CompleteMultipartUpload>'
BYPASS = {"x-amz-bypass-governance-retention": "true"}
ATTRIBUTES = {"x-amz-object-attributes": "ETag,ObjectSize,ObjectParts,Checksum"}


def object_attacks(key, version, upload, etag):
    """Every operation on an object, as method, query, headers and body."""
    v = [("versionId", version)]
    for query in ([], v):
        yield "GET", query, {}, b""
        yield "HEAD", query, {}, b""
        yield "GET", query, {"range": "bytes=0-0"}, b""
        yield "GET", query, {"if-none-match": etag}, b""
        yield "GET", query, {"if-match": '"0"'}, b""
        yield "GET", [*query, ("partNumber", "1")], {}, b""
        yield "GET", [*query, ("response-content-type", "text/html")], {}, b""
        yield "GET", [("attributes", ""), *query], ATTRIBUTES, b""
        for name in ("acl", "tagging", "retention", "legal-hold"):
            yield "GET", [(name, ""), *query], {}, b""
        yield "PUT", [("acl", ""), *query], {"x-amz-acl": "public-read"}, b""
        yield "PUT", [("acl", ""), *query], {"x-amz-grant-full-control": f"id={ID['alt']}"}, b""
        yield "PUT", [("tagging", ""), *query], md5(TAGS), TAGS
        yield "DELETE", [("tagging", ""), *query], {}, b""
        yield "PUT", [("retention", ""), *query], {**md5(RETENTION), **BYPASS}, RETENTION
        yield "PUT", [("legal-hold", ""), *query], md5(HOLD), HOLD
        yield "DELETE", query, {}, b""
        yield "DELETE", query, BYPASS, b""
        yield "DELETE", query, {"if-match": etag}, b""
    yield "PUT", [], {}, b"mine"
    yield "PUT", [], {"if-match": etag}, b"mine"
    yield "PUT", [], {"if-none-match": "*"}, b"mine"
    yield "PUT", [], {"x-amz-acl": "bucket-owner-full-control", "x-amz-tagging": "a=b"}, b"mine"
    yield "POST", [("uploads", "")], {}, b""
    u = [("uploadId", upload)]
    yield "PUT", [("partNumber", "1"), *u], {}, b"mine"
    yield "GET", u, {}, b""
    yield "GET", [*u, ("part-number-marker", "1"), ("max-parts", "1")], {}, b""
    yield "POST", u, {}, COMPLETE % etag.strip('"').encode()
    yield "DELETE", u, {}, b""


BUCKET_READS = """acl policy policyStatus location versioning tagging cors lifecycle encryption publicAccessBlock
ownershipControls object-lock logging notification requestPayment website replication accelerate analytics inventory metrics
intelligent-tiering uploads versions""".split()
BUCKET_WRITES = """acl policy versioning tagging cors lifecycle encryption publicAccessBlock ownershipControls object-lock
logging notification requestPayment website replication accelerate""".split()
BUCKET_DELETES = "policy tagging cors lifecycle encryption publicAccessBlock ownershipControls website replication".split()


def bucket_attacks():
    yield "GET", [], {}, b""
    yield "HEAD", [], {}, b""
    yield "GET", [("list-type", "2"), ("prefix", "secret"), ("max-keys", "0")], {}, b""
    yield "GET", [("versions", ""), ("prefix", "nothing")], {}, b""
    for name in BUCKET_READS:
        yield "GET", [(name, "")], {}, b""
    for name in BUCKET_WRITES:
        yield "PUT", [(name, "")], md5(b"<x/>"), b"<x/>"
    for name in BUCKET_DELETES:
        yield "DELETE", [(name, "")], {}, b""
    yield "DELETE", [], {}, b""
    delete = b"<Delete><Object><Key>secret</Key></Object></Delete>"
    yield "POST", [("delete", "")], {**md5(delete), **BYPASS}, delete
    form = b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\nsecret\r\n'
    form += b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\nmine\r\n--B--\r\n'
    yield "POST", [], {"content-type": "multipart/form-data; boundary=B"}, form


def said(response, *names) -> tuple:
    """What an answer tells, without what differs from one request to the next and without what its request named."""
    headers = {k: v for k, v in response.headers.items() if k not in ("date", "x-amz-request-id", "x-amz-id-2")}
    headers.pop("content-length", None)
    body = re.sub(rb"<(RequestId|HostId)>[^<]*", b"", response.body)
    for name in names:
        body = body.replace(name.encode(), b"...")
    return response.status, headers, body


SECRETS = [b"main-study", ID["main"].encode(), b"Main", b"example.org", b"KEY-OF-MAIN", BODY[:9], b"default"]


def state(s3, bucket) -> list:
    versions = s3.list_object_versions(Bucket=bucket)
    uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    parts = [s3.list_parts(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"]).get("Parts") for one in uploads]
    tags = [
        s3.get_object_tagging(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])["TagSet"]
        for one in versions["Versions"]
    ]
    lists = [
        s3.get_object_acl(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])["Grants"]
        for one in versions["Versions"]
    ]
    s3.head_bucket(Bucket=bucket)
    return [versions["Versions"], versions.get("DeleteMarkers"), uploads, parts, tags, lists]


@pytest.mark.parametrize("who", ["alt", None])
@pytest.mark.parametrize("is_open", [False, True])
def test_strangers_get_nothing_and_learn_nothing(trio_server, main, make_bucket, who, is_open):
    """Also where the bucket has rules, which let others in elsewhere: then a different path decides."""
    bucket = make_bucket(ObjectLockEnabledForBucket=True)
    etag = main.put_object(Bucket=bucket, Key="secret", Body=BODY, Tagging="a=1")["ETag"]
    version = main.list_object_versions(Bucket=bucket)["Versions"][0]["VersionId"]
    upload = main.create_multipart_upload(Bucket=bucket, Key="secret")["UploadId"]
    main.upload_part(Bucket=bucket, Key="secret", UploadId=upload, PartNumber=1, Body=BODY)
    if is_open:
        open_to_all = statement(bucket, action="s3:*", resource="/open/*")
        main.put_bucket_policy(Bucket=bucket, Policy=policy(open_to_all))
    else:
        main.delete_public_access_block(Bucket=bucket)
    before = state(main, bucket)
    # Another bucket's version and upload: ids that exist, and not here.
    other = make_bucket(ObjectLockEnabledForBucket=True)
    absent_version = main.put_object(Bucket=other, Key="secret", Body=b"")["VersionId"]
    absent_upload = main.create_multipart_upload(Bucket=other, Key="secret")["UploadId"]

    there = object_attacks("secret", version, upload, etag)
    absent = object_attacks("absent", absent_version, absent_upload, etag)
    for attack, same in zip(there, absent):
        (method, query, headers, body), (_, query_absent, headers_absent, _) = attack, same
        got = raw(trio_server, who, method, f"/{bucket}/secret", query, headers, body)
        assert got.status == 403 and got.code in (None, "AccessDenied"), (attack, got)
        no = raw(trio_server, who, method, f"/{bucket}/absent", query_absent, headers_absent, body)
        assert said(got, "secret", version, upload) == said(no, "absent", absent_version, absent_upload), attack
        assert not [secret for secret in SECRETS if secret in got.body or secret in str(got.headers).encode()], got
    for attack in bucket_attacks():
        method, query, headers, body = attack
        got = raw(trio_server, who, method, f"/{bucket}", query, headers, body)
        # Inside an answer to DeleteObjects each key has its own refusal.
        assert got.code in (None, "AccessDenied") and b"<Deleted>" not in got.body, (attack, got)
        assert got.status == 403 or b"<DeleteResult" in got.body, (attack, got)
        assert not [secret for secret in SECRETS if secret in got.body or secret in str(got.headers).encode()], got
    assert state(main, bucket) == before


def test_what_may_be_written_is_no_source_to_read(trio_server, main, alt, make_bucket):
    """A copy's source is judged like a GET: in every spelling, of every version, as a part, and from one's own bucket."""
    bucket, own = make_bucket(), f"alt-{random.randrange(10**12):012d}"
    alt.create_bucket(Bucket=own)
    main.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = main.put_object(Bucket=bucket, Key="closed/k", Body=BODY)["VersionId"]
    main.put_object(Bucket=bucket, Key="open/k", Body=BODY)
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(
            statement(bucket, principal=arn("alt"), action=["s3:PutObject", "s3:AbortMultipartUpload"]),
            statement(bucket, principal=arn("alt"), resource="/open/*"),
        ),
    )
    for target in (own, bucket):
        upload = alt.create_multipart_upload(Bucket=target, Key="t")["UploadId"]
        for query in ([], [("partNumber", "1"), ("uploadId", upload)]):
            for source, status in [
                (f"/{bucket}/open/k", 200),
                (f"{bucket}/closed/k", 403),
                (f"/{bucket}%2Fclosed%2Fk", 403),
                (f"{bucket}/%63losed/k", 403),
                (f"{bucket}/open/../closed/k", 403),
                (f"{bucket}/open/%2e%2e/closed/k", 403),
                (f"{bucket}//closed/k", 403),
                (f"{bucket}/closed/k?versionId={version}", 403),
                # A version needs a right of its own, which the query can't give.
                (f"{bucket}/open/k?versionId={version}", 403),
                (f"{bucket}/closed/absent", 403),
            ]:
                got = raw(trio_server, "alt", "PUT", f"/{target}/t", query, {"x-amz-copy-source": source})
                assert got.status == status, (source, query, got)
                assert status == 200 or BODY[:8] not in got.body
        alt.abort_multipart_upload(Bucket=target, Key="t", UploadId=upload)


def test_keys_are_bytes_and_not_paths(trio_server, main, alt, bucket):
    main.put_object(Bucket=bucket, Key="closed/k", Body=BODY)
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(
            statement(bucket, principal=arn("alt"), action="s3:*", resource="/*"),
            statement(bucket, "Deny", action="s3:*", resource="/closed/*"),
        ),
    )
    with Connection(trio_server) as connection:
        for target in ("closed/k", "%63losed/k", "closed%2Fk", "clos%65d%2fk"):
            headers = signer("alt").headers("GET", f"/{bucket}/closed/k", (), {"host": connection.host}, rawhttp.EMPTY_SHA256)
            connection.send_head("GET", f"/{bucket}/{target}", headers)
            assert connection.read_response().code == "AccessDenied", target
    # Other names are other objects, of which the policy says something else.
    for other in ("open/../closed/k", "./closed/k", "/closed/k", "Closed/k", "closed%2Fk", "closed\\k"):
        alt.put_object(Bucket=bucket, Key=other, Body=b"alt's")
    main.delete_bucket_policy(Bucket=bucket)
    assert main.get_object(Bucket=bucket, Key="closed/k")["Body"].read() == BODY


# -- words that do nothing -------------------------------------------------------------------------------------------------


def test_a_prefix_beside_a_key_tells_no_secret(trio_server, main, alt, bucket):
    main.put_object(Bucket=bucket, Key="closed/k", Body=BODY)
    only_open = {"StringLike": {"s3:prefix": "open/*"}}
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(statement(bucket, principal=arn("alt"), action="s3:ListBucket", resource="", Condition=only_open)),
    )
    assert alt.list_objects_v2(Bucket=bucket, Prefix="open/x")["KeyCount"] == 0
    for key in ("closed/k", "closed/absent"):
        for method in ("GET", "HEAD"):
            got = raw(trio_server, "alt", method, f"/{bucket}/{key}", [("prefix", "open/x")])
            assert got.status == 403, (key, got)


def retain(mode: str, days: float) -> bytes:
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{until:%Y-%m-%dT%H:%M:%SZ}</RetainUntilDate></Retention>".encode()


def tagging(value: str) -> bytes:
    return TAGS.replace(b"<Key>a</Key><Value>b", b"<Key>class</Key><Value>" + value.encode())


# The condition, then requests on `k` with what must become of them.
CONDITIONS = {
    "tags of the body": (
        {"StringEquals": {"s3:RequestObjectTag/class": "open"}},
        [
            ("PUT", [("tagging", "")], {}, tagging("open"), 200),
            ("PUT", [("tagging", "")], {}, tagging("closed"), 403),
            ("PUT", [("tagging", "")], {"x-amz-tagging": "class=open"}, tagging("closed"), 403),
            ("PUT", [], {"x-amz-tagging": "class=open"}, b"", 200),
            ("PUT", [], {"x-amz-tagging": "class=closed&x=open"}, b"", 403),
            ("PUT", [], {}, b"", 403),
        ],
    ),
    "mode of the body": (
        {"StringEquals": {"s3:object-lock-mode": "GOVERNANCE"}},
        [
            ("PUT", [("retention", "")], {}, retain("GOVERNANCE", 1), 200),
            ("PUT", [("retention", "")], {"x-amz-object-lock-mode": "GOVERNANCE"}, retain("COMPLIANCE", 2), 403),
        ],
    ),
    "days that remain": (
        {"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": "10"}},
        [
            ("PUT", [("retention", "")], {}, retain("GOVERNANCE", 10), 200),
            ("PUT", [("retention", "")], {}, retain("GOVERNANCE", 11), 403),
            ("PUT", [("retention", "")], {"x-amz-object-lock-retain-until-date": "2000-01-01T00:00:00Z"}, retain("GOVERNANCE", 11), 403),
        ],
    ),
    "hold of the body": (
        {"StringEquals": {"s3:object-lock-legal-hold": "ON"}},
        [
            ("PUT", [("legal-hold", "")], {"x-amz-object-lock-legal-hold": "ON"}, HOLD, 403),
            ("PUT", [("legal-hold", "")], {}, HOLD.replace(b"OFF", b"ON"), 200),
            ("PUT", [("legal-hold", "")], {}, HOLD, 403),
        ],
    ),
    "conditional writes": (
        {"Null": {"s3:if-none-match": "false"}},
        [
            ("PUT", [], {}, b"mine", 403),
            ("PUT", [], {"if-none-match": "*"}, b"mine", 412),
        ],
    ),
    "an object's tag is not the request's": (
        {"StringEquals": {"s3:ExistingObjectTag/class": "open"}},
        [
            ("GET", [], {"x-amz-tagging": "class=open"}, b"", 403),
            ("PUT", [("tagging", "")], {"x-amz-tagging": "class=open"}, tagging("open"), 403),
        ],
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_satisfied_only_by_what_the_request_does(trio_server, main, make_bucket, name):
    condition, attacks = CONDITIONS[name]
    bucket = make_bucket(ObjectLockEnabledForBucket=True)
    main.put_object(Bucket=bucket, Key="k", Body=BODY)
    allowed = statement(bucket, principal=arn("alt"), action="s3:*", Condition=condition)
    main.put_bucket_policy(Bucket=bucket, Policy=policy(allowed))
    for method, query, headers, body, status in attacks:
        got = raw(trio_server, "alt", method, f"/{bucket}/k", query, {**headers, **(md5(body) if body else {})}, body)
        assert got.status == status, (method, query, headers, body, got)


def test_a_version_is_named_by_what_is_judged(trio_server, main, alt, bucket):
    """By the line of a DeleteObjects and by a copy's source, whatever stands in the query."""
    main.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    open_one, closed_one = (main.put_object(Bucket=bucket, Key="k", Body=BODY)["VersionId"] for _ in range(2))
    only_open = {"StringEquals": {"s3:VersionId": open_one}}
    actions = ["s3:GetObjectVersion", "s3:DeleteObjectVersion"]
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(
            statement(bucket, principal=arn("alt"), action=actions, Condition=only_open),
            statement(bucket, principal=arn("alt"), action="s3:PutObject"),
        ),
    )
    query = [("versionId", open_one)]
    for version, status in ((open_one, 200), (closed_one, 403)):
        source = {"x-amz-copy-source": f"{bucket}/k?versionId={version}"}
        assert raw(trio_server, "alt", "PUT", f"/{bucket}/t", query, source).status == status, version
        assert raw(trio_server, "alt", "GET", f"/{bucket}/k", [("versionId", version)]).status == status, version
    delete = f"<Delete><Object><Key>k</Key><VersionId>{closed_one}</VersionId></Object></Delete>".encode()
    got = raw(trio_server, "alt", "POST", f"/{bucket}", [("delete", ""), *query], md5(delete), delete)
    assert b"<Code>AccessDenied</Code>" in got.body and b"<Deleted>" not in got.body, got
    delete = delete.replace(closed_one.encode(), open_one.encode())
    got = raw(trio_server, "alt", "POST", f"/{bucket}", [("delete", "")], md5(delete), delete)
    assert b"<Deleted>" in got.body, got


def test_a_copy_source_is_compared_as_what_it_names(trio_server, main, bucket):
    for key in ("closed/k", "open/k"):
        main.put_object(Bucket=bucket, Key=key, Body=BODY)
    closed = {"StringLike": {"s3:x-amz-copy-source": f"{bucket}/closed/*"}}
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(
            statement(bucket, principal=arn("alt"), action=["s3:GetObject", "s3:PutObject"]),
            statement(bucket, "Deny", action="s3:PutObject", Condition=closed),
        ),
    )
    for source, status in [("open/k", 200), ("closed/k", 403), ("%63losed/k", 403), ("closed%2Fk", 403)]:
        for slash in ("", "/"):
            got = raw(trio_server, "alt", "PUT", f"/{bucket}/t", [], {"x-amz-copy-source": f"{slash}{bucket}/{source}"})
            assert got.status == status, (slash, source, got)


def test_who_may_write_but_not_read_cannot_compare(main, alt, bucket):
    """Nor may who reads only attributes: an ETag tells whether a known file is there."""
    etag = main.put_object(Bucket=bucket, Key="k", Body=BODY)["ETag"]
    actions = ["s3:PutObject", "s3:DeleteObject", "s3:GetObjectAttributes"]
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"), action=actions)))
    for guess in (etag, '"00000000000000000000000000000000"'):
        for key in ("k", "absent"):
            refused(lambda: alt.put_object(Bucket=bucket, Key=key, Body=b"", IfMatch=guess))
            refused(lambda: alt.delete_object(Bucket=bucket, Key=key, IfMatch=guess))
            many = alt.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key, "ETag": guess}]})
            assert [one["Code"] for one in many["Errors"]] == ["AccessDenied"]
    sized = alt.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "Size": len(BODY)}]})
    assert [one["Code"] for one in sized["Errors"]] == ["AccessDenied"]
    refused(lambda: alt.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag"]))
    # That there is an object they may learn, as in AWS.
    refused(lambda: alt.put_object(Bucket=bucket, Key="k", Body=b"", IfNoneMatch="*"), "PreconditionFailed", 412)
    reading = statement(bucket, principal=arn("alt"), action=[*actions, "s3:GetObject"])
    main.put_bucket_policy(Bucket=bucket, Policy=policy(reading))
    assert alt.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag"])["ETag"] == etag.strip('"')
    alt.put_object(Bucket=bucket, Key="k", Body=b"", IfMatch=etag)


def test_reading_tells_no_tags_and_no_locks_to_who_may_not_see_them(main, alt, nobody, make_bucket):
    """Not in headers, and not by way of a copy."""
    bucket, own = make_bucket(ObjectLockEnabledForBucket=True), f"alt-{random.randrange(10**12):012d}"
    alt.create_bucket(Bucket=own)
    until = datetime.datetime.now(datetime.timezone.utc) + HOUR
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until, "ObjectLockLegalHoldStatus": "ON"}
    main.put_object(Bucket=bucket, Key="k", Body=BODY, Tagging="patient=7", **lock)
    told = ["TagCount", "ObjectLockMode", "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus"]
    reading = statement(bucket)
    copying = {"Bucket": own, "Key": "k", "CopySource": f"{bucket}/k"}
    main.put_bucket_policy(Bucket=bucket, Policy=policy(reading))
    for s3 in (alt, nobody):
        for answer in (s3.get_object(Bucket=bucket, Key="k"), s3.head_object(Bucket=bucket, Key="k")):
            assert not [name for name in told if name in answer]
    assert [name for name in told if name in main.head_object(Bucket=bucket, Key="k")] == told
    refused(lambda: alt.copy_object(**copying))
    alt.copy_object(**copying, TaggingDirective="REPLACE")
    assert alt.get_object_tagging(Bucket=own, Key="k")["TagSet"] == []
    more = statement(bucket, action=["s3:GetObjectTagging", "s3:GetObjectRetention", "s3:GetObjectLegalHold"])
    main.put_bucket_policy(Bucket=bucket, Policy=policy(reading, more))
    assert [name for name in told if name in nobody.head_object(Bucket=bucket, Key="k")] == told
    alt.copy_object(**copying)
    assert alt.get_object_tagging(Bucket=own, Key="k")["TagSet"] == [{"Key": "patient", "Value": "7"}]


# -- slow bodies, and rights that end ------------------------------------------------------------------------------------


@contextlib.contextmanager
def begun(server, who, method, path, query, headers, body):
    """A request whose head has been judged and whose body is still to come: sends it when called."""
    with Connection(server) as connection:
        all_headers = {"host": connection.host, "expect": "100-continue", **headers}
        signed = signer(who).headers(method, path, query, all_headers, hashlib.sha256(body).hexdigest(), ("expect",))
        signed["content-length"] = str(len(body))
        target = rawhttp.encode_path(path) + "?" + "&".join(f"{k}={v}" for k, v in query)
        connection.send_head(method, target, signed)
        # The server asks for the body when it wants to read it, which is after the rights were judged.
        assert connection.sock.recv(1024).startswith(b"HTTP/1.1 100 ")

        def finish():
            connection.send(body)
            return connection.read_response()

        yield finish


def acl_of(owner: str, reader: str) -> bytes:
    return (
        f"<AccessControlPolicy><Owner><ID>{owner}</ID></Owner><AccessControlList><Grant><Grantee "
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>{reader}</ID></Grantee>'
        "<Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>"
    ).encode()


@pytest.mark.parametrize("versioning", [None, "Enabled"])
def test_who_owned_an_object_has_no_say_over_what_replaces_it(trio_server, main, alt, make_bucket, versioning):
    bucket = make_bucket(ObjectOwnership="ObjectWriter")
    if versioning:
        main.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": versioning})
    main.put_bucket_acl(Bucket=bucket, GrantWrite=f"id={ID['alt']}", GrantFullControl=f"id={ID['main']}")
    alt.put_object(Bucket=bucket, Key="k", Body=b"alt's")
    body = acl_of(ID["alt"], ID["alt"])
    with begun(trio_server, "alt", "PUT", f"/{bucket}/k", [("acl", "")], {}, body) as finish:
        main.put_object(Bucket=bucket, Key="k", Body=BODY)
        got = finish()
    assert (got.status, got.code) == ((200, None) if versioning else (409, "OperationAborted")), got
    refused(lambda: alt.get_object(Bucket=bucket, Key="k"))
    assert [one["Grantee"]["ID"] for one in main.get_object_acl(Bucket=bucket, Key="k")["Grants"]] == [ID["main"]]


def test_a_right_that_ends_while_a_body_comes_in_is_gone(trio_server, main, alt, bucket):
    """Small bodies are bounded in bytes, not in time."""
    main.put_object(Bucket=bucket, Key="k", Body=BODY)
    upload = main.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    etag = main.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=BODY)["ETag"].strip('"')
    delete = b"<Delete><Object><Key>k</Key></Object></Delete>"
    complete = COMPLETE % etag.encode()
    cors = b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>"
    attacks = [
        ("POST", f"/{bucket}", [("delete", "")], delete),
        ("POST", f"/{bucket}/m", [("uploadId", upload)], complete),
        ("PUT", f"/{bucket}", [("tagging", "")], TAGS),
        ("PUT", f"/{bucket}", [("cors", "")], cors),
        ("PUT", f"/{bucket}", [("versioning", "")], b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
        ("PUT", f"/{bucket}/k", [("tagging", "")], TAGS),
        ("PUT", f"/{bucket}/n", [], b"mine"),
    ]
    allowed = statement(bucket, principal=arn("alt"), action="s3:*", resource=["", "/*"])
    main.put_bucket_policy(Bucket=bucket, Policy=policy(allowed))
    before = main.list_object_versions(Bucket=bucket)["Versions"]
    with contextlib.ExitStack() as stack:
        finishes = [stack.enter_context(begun(trio_server, "alt", m, p, q, md5(b), b)) for m, p, q, b in attacks]
        main.delete_bucket_policy(Bucket=bucket)
        # For longer than the second for which an answer is trusted.
        time.sleep(1.2)
        for attack, finish in zip(attacks, finishes):
            got = finish()
            assert b"<Code>AccessDenied</Code>" in got.body and b"<Deleted>" not in got.body, (attack, got)
    assert main.list_object_versions(Bucket=bucket)["Versions"] == before
    assert main.list_parts(Bucket=bucket, Key="m", UploadId=upload)["Parts"]
    assert "Status" not in main.get_bucket_versioning(Bucket=bucket)
    for call in (main.get_bucket_tagging, main.get_bucket_cors):
        with pytest.raises(ClientError):
            call(Bucket=bucket)


def test_blocking_public_access_ends_what_is_under_way(trio_server, main, nobody, bucket):
    size = 48 * MIB
    main.put_object(Bucket=bucket, Key="big", Body=random_bytes(size))
    main.put_object(Bucket=bucket, Key="k", Body=BODY)
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, action=["s3:GetObject", "s3:PutObject"])))
    upload = nobody.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    part = nobody.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    with Connection(trio_server) as download, Connection(trio_server) as sending:
        download.sock.setsockopt(rawhttp.socket.SOL_SOCKET, rawhttp.socket.SO_RCVBUF, 64 * 1024)
        download.send_head("GET", f"/{bucket}/big", {"host": download.host})
        assert download.sock.recv(12) == b"HTTP/1.1 200"
        sending.send_head("PUT", f"/{bucket}/new", {"host": sending.host, "content-length": 10})
        sending.send(b"x")
        main.put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration={**OPEN, "RestrictPublicBuckets": True}
        )
        # Silent, and told all the same.
        assert sending.read_response().code == "AccessDenied"
        got, deadline = 12, time.monotonic() + harness.PATIENCE_S
        try:
            while piece := download.sock.recv(64 * 1024):
                got += len(piece)
                assert time.monotonic() < deadline
                time.sleep(0.01)
        except ConnectionError:
            pass
        assert got < size
    form = b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n'
    form += b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\nmine\r\n--B--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=B"}
    assert raw(trio_server, None, "POST", f"/{bucket}", [], kind, form).code == "AccessDenied"
    mine = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    for call in (
        lambda: nobody.get_object(Bucket=bucket, Key="k"),
        lambda: nobody.put_object(Bucket=bucket, Key="k", Body=b""),
        lambda: nobody.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k"),
        lambda: nobody.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=2, Body=b"x"),
        lambda: nobody.upload_part_copy(Bucket=bucket, Key="m", UploadId=upload, PartNumber=2, CopySource=f"{bucket}/k"),
        lambda: nobody.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload=mine),
        lambda: nobody.list_parts(Bucket=bucket, Key="m", UploadId=upload),
        lambda: nobody.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=upload),
    ):
        refused(call)


def test_a_body_is_not_asked_for_from_who_can_not_have_a_right(trio_server, main, bucket):
    """Some rights are known only when the body has been read: of those whom nothing lets in, it is not."""
    main.put_object(Bucket=bucket, Key="k", Body=BODY)
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("third"), action="s3:*")))
    requests = [("POST", "", "delete"), ("PUT", "/k", "tagging"), ("PUT", "/k", "retention"), ("PUT", "/k", "legal-hold")]
    for who in ("alt", None):
        for method, path, name in requests:
            with Connection(trio_server) as connection:
                headers = {"host": connection.host}
                if who:
                    query = [(name, "")]
                    headers = signer(who).headers(method, f"/{bucket}{path}", query, headers, rawhttp.UNSIGNED)
                headers |= {"expect": "100-continue", "content-length": str(8 * MIB)}
                connection.send_head(method, f"/{bucket}{path}?{name}=", headers)
                assert connection.sock.recv(12) == b"HTTP/1.1 403", (who, name)


@pytest.mark.parametrize("by", ["acl", "tags"])
def test_a_download_ends_when_its_object_is_closed(trio_server, main, make_bucket, by):
    bucket, size = make_bucket(ObjectOwnership="ObjectWriter"), 24 * MIB
    main.put_object(Bucket=bucket, Key="big", Body=random_bytes(size), Tagging="class=open")
    if by == "acl":
        main.put_object_acl(Bucket=bucket, Key="big", ACL="public-read")
    else:
        tagged = {"StringEquals": {"s3:ExistingObjectTag/class": "open"}}
        main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, Condition=tagged)))
    with Connection(trio_server) as download:
        download.sock.setsockopt(rawhttp.socket.SOL_SOCKET, rawhttp.socket.SO_RCVBUF, 64 * 1024)
        download.send_head("GET", f"/{bucket}/big", {"host": download.host})
        assert download.sock.recv(12) == b"HTTP/1.1 200"
        if by == "acl":
            main.put_object_acl(Bucket=bucket, Key="big", ACL="private")
        else:
            main.put_object_tagging(Bucket=bucket, Key="big", Tagging={"TagSet": []})
        time.sleep(1.2)
        got = 12
        with contextlib.suppress(ConnectionError):
            while piece := download.sock.recv(1 << 20):
                got += len(piece)
        assert got < size


def test_a_deny_by_tag_keeps_members_from_deleting(main, bucket):
    main.put_object(Bucket=bucket, Key="k", Body=BODY, Tagging="keep=yes")
    main.put_object(Bucket=bucket, Key="l", Body=BODY)
    kept = {"StringEquals": {"s3:ExistingObjectTag/keep": "yes"}}
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, "Deny", action="s3:DeleteObject*", Condition=kept)))
    refused(lambda: main.delete_object(Bucket=bucket, Key="k"))
    many = main.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}, {"Key": "l"}]})
    assert [one["Key"] for one in many["Deleted"]] == ["l"] and [one["Key"] for one in many["Errors"]] == ["k"]


# -- Object Lock ---------------------------------------------------------------------------------------------------------


def test_nothing_that_a_stranger_is_given_bypasses_a_lock(trio_server, main, alt, make_bucket):
    """Whoever may delete versions and change retention, but not bypass governance, deletes and shortens nothing."""
    bucket = make_bucket(ObjectLockEnabledForBucket=True)
    until = datetime.datetime.now(datetime.timezone.utc) + HOUR
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    version = main.put_object(Bucket=bucket, Key="k", Body=BODY, **lock)["VersionId"]
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(
            statement(bucket, principal=arn("alt"), action="s3:*", resource=["", "/*"]),
            statement(bucket, "Deny", principal=arn("alt"), action="s3:BypassGovernanceRetention"),
        ),
    )
    one = {"Bucket": bucket, "Key": "k", "VersionId": version}
    sooner = {"Mode": "GOVERNANCE", "RetainUntilDate": until - HOUR / 2}
    for bypass in (False, True):
        refused(lambda: alt.delete_object(**one, BypassGovernanceRetention=bypass))
        refused(lambda: alt.put_object_retention(**one, Retention=sooner, BypassGovernanceRetention=bypass))
        refused(lambda: alt.put_object_retention(**one, Retention={}, BypassGovernanceRetention=bypass))
        lines = {"Objects": [{"Key": "k", "VersionId": version}]}
        many = alt.delete_objects(Bucket=bucket, Delete=lines, BypassGovernanceRetention=bypass)
        assert [line["Code"] for line in many["Errors"]] == ["AccessDenied"] and "Deleted" not in many
    # Twice in one request, under another spelling of the header, and beside a query that says the same.
    for value in ("TRUE", "True"):
        got = raw(trio_server, "alt", "DELETE", f"/{bucket}/k", [("versionId", version)], {"x-amz-bypass-governance-retention": value})
        assert got.code == "AccessDenied", got
    for call in (
        lambda: alt.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
        lambda: alt.delete_bucket(Bucket=bucket),
    ):
        with pytest.raises(ClientError):
            call()
    # Written onto by every kind of write: the version stays.
    alt.put_object(Bucket=bucket, Key="k", Body=b"1")
    alt.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", MetadataDirective="REPLACE")
    upload = alt.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    etag = alt.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"2")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    alt.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts)
    alt.delete_object(Bucket=bucket, Key="k")
    assert main.get_object(**one)["Body"].read() == BODY
    kept = main.get_object_retention(**one)["Retention"]
    assert kept["Mode"] == "GOVERNANCE" and abs(kept["RetainUntilDate"] - until) < datetime.timedelta(seconds=1)


def test_a_hold_and_a_delete_never_both_succeed(trio_server, main, make_bucket):
    bucket = make_bucket(ObjectLockEnabledForBucket=True)
    for index in range(12):
        version = main.put_object(Bucket=bucket, Key="k", Body=BODY)["VersionId"]
        one = {"Bucket": bucket, "Key": "k", "VersionId": version}
        until = datetime.datetime.now(datetime.timezone.utc) + HOUR
        locks = (
            lambda s3: s3.put_object_legal_hold(**one, LegalHold={"Status": "ON"}),
            lambda s3: s3.put_object_retention(**one, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until}),
        )
        outcomes = {}
        barrier = threading.Barrier(2)

        def run(name, call):
            s3 = trio.client(trio_server, "main")
            barrier.wait()
            outcomes[name] = outcome(lambda: call(s3))

        calls = {"lock": locks[index % 2], "delete": lambda s3: s3.delete_object(**one)}
        threads = [threading.Thread(target=run, args=pair) for pair in calls.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        is_there = outcome(lambda: main.head_object(**one)) == "done"
        assert (outcomes["lock"] == "done") == is_there, outcomes
        assert (outcomes["delete"] == "done") != is_there, outcomes


# -- input that nobody signed for ------------------------------------------------------------------------------------------

HEAD = b"GET /b HTTP/1.1\r\nhost: h\r\n"
CHUNKED = b"POST /b?delete HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
GARBAGE = {
    "no HTTP": b"\x00" * 4096 + b"\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    "a method of its own": b"EVIL /b HTTP/1.1\r\nhost: h\r\n\r\n",
    "CONNECT": b"CONNECT other:443 HTTP/1.1\r\nhost: h\r\n\r\n",
    "an absolute target": b"GET http://other/b/k HTTP/1.1\r\nhost: h\r\n\r\n",
    "no host": b"GET /b HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"host: i\r\n\r\n",
    "a host of nonsense": b"GET /b HTTP/1.1\r\nhost: [::1]:99999999/../@b\r\n\r\n",
    "a bad escape": b"GET /b/%zz%c3%28?%ff=%fe HTTP/1.1\r\nhost: h\r\n\r\n",
    "a zero in the key": b"GET /b/%00 HTTP/1.1\r\nhost: h\r\n\r\n",
    "a key of dots": b"GET /../../../etc/passwd HTTP/1.1\r\nhost: h\r\n\r\n",
    "a long key": b"GET /b/" + b"k" * 30_000 + b" HTTP/1.1\r\nhost: h\r\n\r\n",
    "many queries": b"GET /b?" + b"&".join(b"a%d=%%41" % n for n in range(4_000)) + b" HTTP/1.1\r\nhost: h\r\n\r\n",
    "many headers": HEAD + b"".join(b"x-amz-meta-%d: a\r\n" % n for n in range(5_000)) + b"\r\n",
    "a header of 10 MiB": HEAD + b"x: " + b"a" * (10 * MIB) + b"\r\n\r\n",
    "a negative length": b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
    "a vast length": b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999999\r\n\r\n",
    "two lengths": b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "length and chunks": b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks of nonsense": CHUNKED + b"zz\r\n\r\n",
    "a chunk of 2^64": CHUNKED + b"ffffffffffffffff\r\nxx",
    "a long chunk line": CHUNKED + b"1;" + b"a" * 100_000 + b"\r\nx\r\n0\r\n\r\n",
    "an authorization of nonsense": HEAD + b"authorization: AWS4-HMAC-SHA256 " + b"Credential=," * 2_000 + b"\r\n\r\n",
    "a credential of slashes": HEAD + b"authorization: AWS4-HMAC-SHA256 Credential=" + b"/" * 5_000 + b", SignedHeaders=;;;, Signature=00\r\n\r\n",
    "a range of nonsense": b"GET /b/k HTTP/1.1\r\nhost: h\r\nrange: bytes=" + b"0-," * 5_000 + b"\r\n\r\n",
    "presigned for ever": b"GET /b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=99999999999999999999&X-Amz-Date=x HTTP/1.1\r\nhost: h\r\n\r\n",
    "aws-chunked unsigned": b"PUT /b/k HTTP/1.1\r\nhost: h\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"
    b"x-amz-decoded-content-length: 18446744073709551615\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "an origin of nonsense": b"OPTIONS /b/k HTTP/1.1\r\nhost: h\r\norigin: " + b"*" * 9_000 + b"\r\naccess-control-request-method: \xff\r\n\r\n",
}


def test_garbage_is_refused_and_the_server_goes_on(trio_server, main):
    for name, data in GARBAGE.items():
        with Connection(trio_server) as connection:
            with contextlib.suppress(ConnectionError):
                connection.send(data)
            got = connection.read_response()
            # A refusal, or the end of the connection.
            assert got is None or 400 <= got.status < 500 or got.status == 501, (name, got)
            assert got is None or b"panic" not in got.body
    main.list_buckets()


BOMB = b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>" + b"".join(
    b"<!ENTITY %c '%s'>" % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
)


def test_documents_made_to_exhaust_are_refused(trio_server, main, make_bucket):
    """To a bucket in which everybody may do everything, so that the bodies are really read."""
    bucket = make_bucket()
    everything = statement(bucket, action="s3:*", resource=["", "/*"])
    main.put_bucket_policy(Bucket=bucket, Policy=policy(everything))
    main.put_object(Bucket=bucket, Key="k", Body=BODY)
    bodies = [
        BOMB + b"]><Tagging>&j;</Tagging>",
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Tagging/>',
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><Tagging><TagSet><Tag><Key>&e;</Key><Value/></Tag></TagSet></Tagging>',
        b"<a>" * 30_000,
        b"<Tagging>" + b"<TagSet>" * 10_000 + b"</TagSet>" * 10_000 + b"</Tagging>",
        b"<Tagging " + b" ".join(b'a%d=""' % n for n in range(10_000)) + b"/>",
        b"<Tagging><TagSet>" + b"<Tag><Key>a</Key><Value/></Tag>" * 5_000 + b"</TagSet></Tagging>",
        b"<" * 100_000,
        b"<Tagging>&#x110000;&#99999999999999999999;</Tagging>",
        b"\xff\xfe<\x00T\x00",
        b"<![CDATA[" * 1_000,
    ]
    targets = [("PUT", "/k", "tagging"), ("PUT", "", "tagging"), ("PUT", "/k", "acl"), ("PUT", "", "lifecycle"),
               ("PUT", "", "cors"), ("POST", "", "delete"), ("PUT", "", "encryption"), ("PUT", "", "ownershipControls")]
    before = main.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    for body in bodies:
        for method, path, name in targets:
            got = raw(trio_server, None, method, f"/{bucket}{path}", [(name, "")], md5(body), body)
            assert got is not None and 400 <= got.status < 500, (name, body[:60], got)
            assert b"root:" not in got.body
    policies = [
        b"[" * 20_000,
        b'{"a":' * 3_000,
        b'{"Version":"2012-10-17","Statement":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"{" + b"0" * 20_000,
        b'{"Statement":' + b"1e999999999" + b"}",
        b'"' + b"\\ud800" * 3_000 + b'"',
        b"x" * (20 * 1024 + 1),
    ]
    for body in policies:
        got = raw(trio_server, "main", "PUT", f"/{bucket}", [("policy", "")], md5(body), body)
        assert 400 <= got.status < 500, (body[:40], got)
    assert main.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == before


def test_patterns_made_to_take_for_ever_do_not(trio_server, main, alt, bucket):
    """Stars without end, against the longest subjects that a request can bring."""
    stars = "*a" * 4_000 + "b"
    half = "*" + "a" * 9_000 + "b"
    main.put_object(Bucket=bucket, Key="k", Body=BODY)
    for pattern in (stars, half, "*" + "?" * 9_000 + "b", "*" + "a?" * 4_500 + "b"):
        for condition in (
            {"StringLike": {"aws:UserAgent": pattern}},
            {"StringNotLike": {"aws:Referer": [pattern]}},
            {"StringLikeIfExists": {"aws:UserAgent": pattern}},
        ):
            one = statement(bucket, action="s3:GetObject", Condition=condition)
            main.put_bucket_policy(Bucket=bucket, Policy=policy(one))
            headers = {"user-agent": "a" * 30_000, "referer": "a" * 30_000}
            got = [raw(trio_server, None, "GET", f"/{bucket}/k", [], headers) for _ in range(1)]
            assert {one.status for one in got} <= {200, 403}, got
    keys = ["a" * 1_000 + str(number) for number in range(200)]
    one = statement(bucket, action="s3:DeleteObject", resource="/" + "*a" * 900 + "b")
    main.put_bucket_policy(Bucket=bucket, Policy=policy(one))
    answer = alt.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    assert len(answer["Errors"]) == 200


def test_many_connections_that_say_nothing_keep_nobody_out(trio_server, main, nobody):
    memory = trio_server.memory_bytes("VmRSS")
    with contextlib.ExitStack() as stack:
        for number in range(400):
            connection = stack.enter_context(Connection(trio_server))
            connection.send([b"", b"GET /", HEAD, b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\nx"][number % 4])
        main.list_buckets()
        refused(nobody.list_buckets)
        assert trio_server.memory_bytes("VmRSS") - memory < 256 * MIB


def test_documents_together_take_no_more_than_their_budget(trio_server, main, bucket):
    """40 bodies of 8 MiB, of which none ends, from somebody who may send them: some are refused, and others go on."""
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, action="s3:DeleteObject")))
    with contextlib.ExitStack() as stack:
        refused_ones = []
        for _ in range(40):
            connection = stack.enter_context(Connection(trio_server))
            headers = {"host": connection.host, "content-length": str(8 * MIB), **md5(b"")}
            connection.send_head("POST", f"/{bucket}?delete", headers)
            with contextlib.suppress(ConnectionError):
                connection.send(bytes(8 * MIB - 1))
            refused_ones.append(connection)

        def told() -> list[int]:
            readable, _, _ = select.select([one.sock for one in refused_ones], [], [], 0)
            return readable

        harness.wait_until(lambda: len(told()) >= 8, "refusals")
        got = next(one for one in refused_ones if one.sock in told()).read_response()
        assert (got.status, got.code) == (503, "SlowDown"), got
        assert len(told()) < 40
        main.put_object(Bucket=bucket, Key="k", Body=b"")
        main.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})
        main.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    keys = [{"Key": f"{number:0900d}"} for number in range(1_000)]
    harness.wait_until(lambda: outcome(lambda: main.delete_objects(Bucket=bucket, Delete={"Objects": keys})) == "done", "room")


def test_secrets_of_a_request_come_back_in_no_answer_and_no_log(trio_server, main, nobody, make_bucket):
    """A customer's key, in every place where it is wrong; a signature; a body that is refused."""
    bucket = make_bucket()
    key = b"the customers key of 32 bytes !!"
    text = base64.b64encode(key).decode()
    right = {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": text,
        "x-amz-server-side-encryption-customer-key-md5": base64.b64encode(hashlib.md5(key).digest()).decode(),
    }
    assert raw(trio_server, "main", "PUT", f"/{bucket}/k", [], right, BODY).status == 200
    md5_name, algorithm = "x-amz-server-side-encryption-customer-key-md5", "x-amz-server-side-encryption-customer-algorithm"
    wrong = [
        {**right, md5_name: "AAAAAAAAAAAAAAAAAAAAAA=="},
        {**right, md5_name: "?"},
        {**right, algorithm: "AES128"},
        {name: value for name, value in right.items() if name != md5_name},
        {name: value for name, value in right.items() if name != algorithm},
        {**right, "x-amz-server-side-encryption-customer-key": text[:-4]},
        {**right, "x-amz-server-side-encryption": "AES256"},
        {**right, "x-amz-copy-source": f"{bucket}/k"},
        {name.replace("server-side", "copy-source-server-side"): value for name, value in right.items()},
    ]
    for headers in wrong:
        for who in ("main", "alt", None):
            for method, query in (("GET", []), ("PUT", []), ("HEAD", []), ("GET", [("attributes", "")]), ("POST", [("uploads", "")])):
                got = raw(trio_server, who, method, f"/{bucket}/k", query, {**headers, **ATTRIBUTES}, b"")
                assert text[:20].encode() not in got.body and text[:20] not in str(got.headers), (headers, got)
    log = trio_server.log()
    assert text[:20] not in log and key.decode() not in log and BODY.decode() not in log
    with pytest.raises(ClientError):
        nobody.get_object(Bucket=bucket, Key="k")
