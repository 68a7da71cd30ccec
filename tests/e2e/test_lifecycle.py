"""Lifecycle rules through boto3, with days of one second: what goes, what stays, and what is told of it.

Where something must not happen, a control that sorts behind it, or was made after it, shows that rules were carried out
meanwhile.
"""

import datetime
import json
import random
import re
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

import harness
from harness import MIB, error_code, error_status, wait_until

SHORT_DAYS = '[metadata]\nlifecycle_day = "1s"\n'
TAG = {"Key": "class", "Value": "temporary"}
OTHER = {"Key": "study", "Value": "a b"}


@pytest.fixture(scope="module")
def short(module_folder):
    """A server whose days have one second."""
    server = harness.Server(module_folder / "short", config=SHORT_DAYS, name="short")
    server.start()
    yield server
    server.kill()
    server.assert_clean_log()


@pytest.fixture
def quick(short):
    return short.s3()


def make_bucket(s3, versioned=False, **options):
    name = f"lifecycle-{random.randrange(10**12):012d}"
    s3.create_bucket(Bucket=name, **options)
    if versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def rule(name, scope=None, **actions):
    """A rule with a filter; `scope` is a prefix or a whole Filter."""
    found = scope if isinstance(scope, dict) else {"Prefix": scope or ""}
    return {"ID": name, "Status": "Enabled", "Filter": found, **actions}


def set_rules(s3, bucket, *rules, **options):
    return s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **options
    )


def put(s3, bucket, key, size=1, tags=()):
    tagging = "&".join(f"{tag['Key']}={tag['Value'].replace(' ', '%20')}" for tag in tags)
    return s3.put_object(Bucket=bucket, Key=key, Body=b"x" * size, Tagging=tagging)


def keys(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def versions(s3, bucket):
    """Every version as (key, is delete marker), newest first."""
    page = s3.list_object_versions(Bucket=bucket)
    found = [(entry, False) for entry in page.get("Versions", [])]
    found += [(entry, True) for entry in page.get("DeleteMarkers", [])]
    found.sort(key=lambda one: (one[0]["Key"], not one[0]["IsLatest"], -one[0]["LastModified"].timestamp()))
    return [(entry["Key"], is_marker) for entry, is_marker in found]


def wait_keys(s3, bucket, expected):
    wait_until(lambda: keys(s3, bucket) == expected, f"{bucket} to hold {expected}")


DAY = {"Expiration": {"Days": 1}}


def test_current_versions_go_by_prefix_tag_size_and_all_of_them(quick):
    bucket = make_bucket(quick)
    set_rules(
        quick,
        bucket,
        rule("prefix", "logs/", **DAY),
        rule("tag", {"Tag": TAG}, **DAY),
        rule("large", {"ObjectSizeGreaterThan": 100_000}, **DAY),
        rule("small", {"And": {"Prefix": "x/", "ObjectSizeGreaterThan": 1, "ObjectSizeLessThan": 4}}, **DAY),
        rule("and", {"And": {"Prefix": "y/", "Tags": [TAG, OTHER]}}, **DAY),
        rule("later", "later/", Expiration={"Days": 3_000}),
        {**rule("disabled", "off/", **DAY), "Status": "Disabled"},
    )
    put(quick, bucket, "keep")
    put(quick, bucket, "large", 100_001)
    put(quick, bucket, "large-not-quite", 100_000)
    put(quick, bucket, "later/1")
    put(quick, bucket, "logs/1")
    put(quick, bucket, "off/1")
    put(quick, bucket, "tagged", tags=[TAG])
    put(quick, bucket, "tagged-otherwise", tags=[OTHER])
    for size in (1, 2, 3, 4):
        put(quick, bucket, f"x/{size}", size)
    put(quick, bucket, "y/both", tags=[TAG, OTHER])
    put(quick, bucket, "y/one", tags=[OTHER])
    put(quick, bucket, "logs/2")
    left = ["keep", "large-not-quite", "later/1", "off/1", "tagged-otherwise", "x/1", "x/4", "y/one"]
    wait_keys(quick, bucket, left)
    with pytest.raises(ClientError) as error:
        quick.get_object(Bucket=bucket, Key="logs/1")
    assert error_code(error.value) == "NoSuchKey"
    # A tag that is set later brings the rule in; Days count from the object's creation.
    quick.put_object_tagging(Bucket=bucket, Key="keep", Tagging={"TagSet": [TAG]})
    wait_keys(quick, bucket, left[1:])


def test_a_date_that_is_over_ends_objects_at_once_and_one_to_come_does_not(quick):
    bucket = make_bucket(quick)
    put(quick, bucket, "future")
    put(quick, bucket, "past")
    # S3's first form: the prefix is the rule's own.
    dates = {"future": datetime.datetime(2100, 1, 1), "past": datetime.datetime(2020, 1, 1)}
    rules = [{"ID": key, "Prefix": key, "Status": "Enabled", "Expiration": {"Date": at}} for key, at in dates.items()]
    set_rules(quick, bucket, *rules)
    wait_keys(quick, bucket, ["future"])


def test_a_version_is_covered_then_removed_and_its_marker_goes_last(quick):
    bucket = make_bucket(quick, versioned=True)
    put(quick, bucket, "kept")
    put(quick, bucket, "k")
    set_rules(quick, bucket, rule("k", "k", **DAY))
    wait_until(lambda: versions(quick, bucket) == [("k", True), ("k", False), ("kept", True), ("kept", False)], "markers")
    noncurrent = {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    set_rules(quick, bucket, rule("old", "k", **noncurrent))
    wait_until(lambda: versions(quick, bucket) == [("k", True), ("kept", True)], "only the markers to be left")
    set_rules(quick, bucket, rule("markers", "", Expiration={"ExpiredObjectDeleteMarker": True}))
    wait_until(lambda: versions(quick, bucket) == [], "the markers to go")
    quick.delete_bucket(Bucket=bucket)


def test_newer_noncurrent_versions_are_kept_as_many_as_the_rule_says(quick):
    bucket = make_bucket(quick, versioned=True)
    made = [put(quick, bucket, "k", size)["VersionId"] for size in range(1, 7)]
    quick.delete_object(Bucket=bucket, Key="marker")
    quick.put_object(Bucket=bucket, Key="marker", Body=b"x")
    expiration = {"NoncurrentDays": 1, "NewerNoncurrentVersions": 2}
    set_rules(quick, bucket, rule("old", "k", NoncurrentVersionExpiration=expiration))

    def left():
        return [entry["VersionId"] for entry in quick.list_object_versions(Bucket=bucket, Prefix="k")["Versions"]]

    wait_until(lambda: left() == made[:2:-1], "three versions to be left")
    # Noncurrent delete markers are noncurrent versions, too.
    set_rules(quick, bucket, rule("old", "marker", NoncurrentVersionExpiration={"NoncurrentDays": 1}))
    wait_until(lambda: ("marker", True) not in versions(quick, bucket), "the noncurrent marker to go")
    assert left() == made[:2:-1]


def test_a_marker_over_versions_stays_and_a_lone_one_goes(quick):
    bucket = make_bucket(quick, versioned=True)
    put(quick, bucket, "covered")
    for key in ("covered", "lone"):
        quick.delete_object(Bucket=bucket, Key=key)
    set_rules(quick, bucket, rule("markers", "", Expiration={"ExpiredObjectDeleteMarker": True}))
    wait_until(lambda: versions(quick, bucket) == [("covered", True), ("covered", False)], "the lone marker to go")


def test_uploads_that_nobody_finishes_are_aborted(quick):
    bucket = make_bucket(quick)
    put(quick, bucket, "tmp/object")
    abort = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    set_rules(quick, bucket, rule("uploads", "tmp/", **abort))
    kept = quick.create_multipart_upload(Bucket=bucket, Key="keep/1")
    assert "AbortDate" not in kept
    upload = quick.create_multipart_upload(Bucket=bucket, Key="tmp/1")
    assert upload["AbortRuleId"] == "uploads"
    named = {"Bucket": bucket, "Key": "tmp/1", "UploadId": upload["UploadId"]}
    quick.upload_part(**named, PartNumber=1, Body=b"x" * 1_000)

    def open_uploads():
        return [entry["UploadId"] for entry in quick.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    wait_until(lambda: open_uploads() == [kept["UploadId"]], "the upload to be aborted")
    with pytest.raises(ClientError) as error:
        quick.upload_part(**named, PartNumber=2, Body=b"x")
    assert error_code(error.value) == "NoSuchUpload"
    assert keys(quick, bucket) == ["tmp/object"]


def test_what_is_locked_stays_while_its_neighbours_go(quick):
    bucket = make_bucket(quick, ObjectLockEnabledForBucket=True)
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    locks = {
        "compliance": {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until},
        "governance": {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until},
        "hold": {"ObjectLockLegalHoldStatus": "ON"},
        "open": {},
    }
    for key, lock in locks.items():
        quick.put_object(Bucket=bucket, Key=key, Body=b"x", **lock)
    everything = {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}, **DAY}
    set_rules(quick, bucket, rule("all", "", **everything))
    left = [(key, is_marker) for key in ("compliance", "governance", "hold") for is_marker in (True, False)]
    wait_until(lambda: versions(quick, bucket) == left, "only what is locked to be left")
    version = quick.list_object_versions(Bucket=bucket, Prefix="hold")["Versions"][0]["VersionId"]
    assert quick.get_object(Bucket=bucket, Key="hold", VersionId=version)["Body"].read() == b"x"
    quick.put_object_legal_hold(Bucket=bucket, Key="hold", VersionId=version, LegalHold={"Status": "OFF"})
    wait_until(lambda: versions(quick, bucket) == left[:4], "the lifted hold to end it")


def test_rules_go_on_over_a_restart_and_stop_when_they_are_removed(make_server):
    # The day's length comes from the environment here, as an outside suite sets it.
    server = make_server(env={"VALV_LIFECYCLE_DAY": "2s"})
    s3 = server.s3()
    stopped, goes = make_bucket(s3), make_bucket(s3)
    for bucket in (stopped, goes):
        set_rules(s3, bucket, rule("r", "", **DAY))
        put(s3, bucket, "k")
    s3.delete_bucket_lifecycle(Bucket=stopped)
    # Not killed: its lease on background work would have to run out first, which takes half a minute.
    server.restart()
    s3 = server.s3()
    wait_keys(s3, goes, [])
    assert keys(s3, stopped) == ["k"]


def test_a_configuration_comes_back_as_it_was_set(s3, bucket):
    def refused_get():
        with pytest.raises(ClientError) as error:
            s3.get_bucket_lifecycle_configuration(Bucket=bucket)
        return error_code(error.value), error_status(error.value)

    assert refused_get() == ("NoSuchLifecycleConfiguration", 404)
    rules = [
        rule("one", "a/", Expiration={"Days": 30}),
        rule("two", {}, Expiration={"Date": datetime.datetime(2040, 1, 1, tzinfo=datetime.timezone.utc)}),
        rule(
            "three",
            {"And": {"Prefix": "å&<", "Tags": [TAG, OTHER], "ObjectSizeGreaterThan": 0, "ObjectSizeLessThan": 9}},
            NoncurrentVersionExpiration={"NoncurrentDays": 3, "NewerNoncurrentVersions": 100},
        ),
        rule("four", {"Tag": TAG}, **DAY),
        {
            **rule("five", "b", Expiration={"ExpiredObjectDeleteMarker": True}),
            "Status": "Disabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
    ]
    answer = set_rules(s3, bucket, *rules)
    assert answer["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found["Rules"] == rules
    assert found["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"

    # S3's first form, without an id; the setting for transitions is kept.
    legacy = [{"Prefix": "a/", "Status": "Enabled", **DAY}, {"Prefix": "b/", "Status": "Enabled", **DAY}]
    set_rules(s3, bucket, *legacy, TransitionDefaultMinimumObjectSize="varies_by_storage_class")
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
    ids = [one.pop("ID") for one in found["Rules"]]
    assert found["Rules"] == legacy
    assert all(ids) and len(set(ids)) == 2
    set_rules(s3, bucket, *(rule(f"rule {at}", f"{at}/", **DAY) for at in range(1_000)))
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]) == 1_000
    for _ in range(2):
        s3.delete_bucket_lifecycle(Bucket=bucket)
        assert refused_get() == ("NoSuchLifecycleConfiguration", 404)


BAD = [
    ([], "InvalidRequest"),
    ([rule(str(at), f"{at}", **DAY) for at in range(1_001)], "InvalidRequest"),
    ([rule("x" * 256, "", **DAY)], "InvalidArgument"),
    ([rule("same", "a", **DAY), rule("same", "b", **DAY)], "InvalidArgument"),
    ([{**rule("r", "", **DAY), "Status": "enabled"}], "MalformedXML"),
    ([{"ID": "r", "Status": "Enabled", **DAY}], "MalformedXML"),
    ([rule("r", "")], "InvalidRequest"),
    ([rule("r", "", Expiration={})], "MalformedXML"),
    ([rule("r", "", Expiration={"Days": 0})], "InvalidArgument"),
    ([rule("r", "", Expiration={"Days": -1})], "InvalidArgument"),
    ([rule("r", "", Expiration={"Date": datetime.datetime(2030, 1, 1, 1)})], "InvalidArgument"),
    ([rule("r", "", Expiration={"Days": 1, "ExpiredObjectDeleteMarker": True})], "MalformedXML"),
    ([rule("r", {"Tag": TAG}, Expiration={"ExpiredObjectDeleteMarker": True})], "InvalidRequest"),
    ([rule("r", {"Prefix": "a", "Tag": TAG}, **DAY)], "MalformedXML"),
    ([rule("r", {"And": {"Prefix": "a"}}, **DAY)], "MalformedXML"),
    ([rule("r", {"And": {"Tags": [TAG, TAG]}}, **DAY)], "InvalidRequest"),
    ([rule("r", {"ObjectSizeLessThan": 0}, **DAY)], "InvalidRequest"),
    ([rule("r", {"And": {"ObjectSizeGreaterThan": 5, "ObjectSizeLessThan": 5}}, **DAY)], "InvalidRequest"),
    ([rule("r", "", NoncurrentVersionExpiration={"NoncurrentDays": 0})], "InvalidArgument"),
    ([rule("r", "", NoncurrentVersionExpiration={"NewerNoncurrentVersions": 1})], "MalformedXML"),
    (
        [rule("r", "", NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 101})],
        "InvalidArgument",
    ),
    ([rule("r", "", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0})], "InvalidArgument"),
    ([rule("r", {"Tag": TAG}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1})], "InvalidRequest"),
    ([rule("r", "", **DAY), {"ID": "s", "Prefix": "a", "Status": "Enabled", **DAY}], "InvalidRequest"),
    ([rule("r", "", Transitions=[{"Days": 30, "StorageClass": "GLACIER"}])], "InvalidStorageClass"),
    (
        [rule("r", "", NoncurrentVersionTransitions=[{"NoncurrentDays": 30, "StorageClass": "GLACIER"}], **DAY)],
        "InvalidStorageClass",
    ),
]  # fmt: skip


def test_what_s3_refuses_is_refused_and_changes_nothing(shared, bucket):
    lenient = shared.s3(parameter_validation=False)
    set_rules(lenient, bucket, rule("good", "", **DAY))
    for rules, code in BAD:
        with pytest.raises(ClientError) as error:
            set_rules(lenient, bucket, *rules)
        shown = json.dumps(rules, default=str)[:200]
        assert (error_code(error.value), error_status(error.value)) == (code, 400), shown
    with pytest.raises(ClientError) as error:
        set_rules(lenient, bucket, rule("r", "", **DAY), TransitionDefaultMinimumObjectSize="none")
    assert error_code(error.value) == "InvalidRequest"
    found = lenient.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert [one["ID"] for one in found["Rules"]] == ["good"]


def test_a_configuration_needs_a_digest(shared, bucket):
    s3 = shared.s3(signature_version="s3v4")
    url = s3.generate_presigned_url("put_bucket_lifecycle_configuration", {"Bucket": bucket}, HttpMethod="PUT")
    body = b"<LifecycleConfiguration/>"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT"), timeout=30)
    answer = error.value.read().decode()
    assert error.value.code == 400 and "<Code>InvalidRequest</Code>" in answer and "Content-MD5" in answer


def midnight_after(modified, days):
    """When so many days from `modified` are over: rounded up to midnight."""
    end = modified + datetime.timedelta(days=days)
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == end else midnight + datetime.timedelta(days=1)


def expiry(answer):
    if "Expiration" not in answer:
        return None
    date, rule_id = re.fullmatch(r'expiry-date="([^"]*)", rule-id="([^"]*)"', answer["Expiration"]).groups()
    parsed = datetime.datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")
    return parsed.replace(tzinfo=datetime.timezone.utc), rule_id


def test_answers_tell_when_an_object_expires_and_by_which_rule(s3, bucket):
    assert expiry(s3.put_object(Bucket=bucket, Key="a/before", Body=b"x")) is None
    set_rules(
        s3,
        bucket,
        rule("two days", "a/", Expiration={"Days": 2}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 3}),
        rule("tagged", {"Tag": TAG}, Expiration={"Days": 1}),
        {**rule("off", "", Expiration={"Days": 1}), "Status": "Disabled"},
    )

    def expected(key, days, name):
        return midnight_after(s3.head_object(Bucket=bucket, Key=key)["LastModified"], days), name

    answers = [
        ("a/1", put(s3, bucket, "a/1")),
        ("a/2", s3.copy_object(Bucket=bucket, Key="a/2", CopySource={"Bucket": bucket, "Key": "a/1"})),
    ]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="a/3")
    named = {"Bucket": bucket, "Key": "a/3", "UploadId": upload["UploadId"]}
    parts = s3.list_parts(**named)
    for answer in (upload, parts):
        assert answer["AbortRuleId"] == "two days"
        ends = answer["AbortDate"] - datetime.datetime.now(datetime.timezone.utc)
        assert datetime.timedelta(days=2, hours=23) < ends <= datetime.timedelta(days=4)
    etags = [s3.upload_part(**named, PartNumber=at, Body=b"x" * (5 * MIB))["ETag"] for at in (1, 2)]
    parts = [{"PartNumber": at, "ETag": etag} for at, etag in zip((1, 2), etags, strict=True)]
    answers.append(("a/3", s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})))
    for key, answer in answers:
        assert expiry(answer) == expected(key, 2, "two days"), key
    for read in (s3.get_object, s3.head_object):
        assert expiry(read(Bucket=bucket, Key="a/before")) == expected("a/before", 2, "two days")
        assert expiry(read(Bucket=bucket, Key="a/1", Range="bytes=0-0"))[1] == "two days"
        # AWS tells nothing of a version that is asked for by its id.
        assert expiry(read(Bucket=bucket, Key="a/1", VersionId="null")) is None
    assert expiry(put(s3, bucket, "other")) is None
    assert expiry(put(s3, bucket, "a/4", tags=[TAG])) == expected("a/4", 1, "tagged")
    s3.put_object_tagging(Bucket=bucket, Key="other", Tagging={"TagSet": [TAG]})
    assert expiry(s3.head_object(Bucket=bucket, Key="other")) == expected("other", 1, "tagged")
    # Changes show at once, whatever was kept in memory.
    set_rules(s3, bucket, rule("date", "", Expiration={"Date": datetime.datetime(2100, 1, 1)}))
    century = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)
    assert expiry(s3.head_object(Bucket=bucket, Key="other")) == (century, "date")
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert expiry(s3.head_object(Bucket=bucket, Key="other")) is None
