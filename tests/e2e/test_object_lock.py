"""Versioning and Object Lock over HTTP: every way in which a client could remove or overwrite what is protected.

Every order of such calls is tried against a model in `metadata/src/tests/lock.rs`; here, that no call goes around it.
"""

import datetime

import pytest
from botocore.exceptions import ClientError

from harness import MIB, refused


def later(**offset):
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(**offset)


@pytest.fixture
def locked(s3, bucket):
    """A bucket with Object Lock."""
    name = f"{bucket}-lock"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    return name


def put(s3, bucket, key="k", body=b"kept", **options):
    return s3.put_object(Bucket=bucket, Key=key, Body=body, **options)["VersionId"]


def in_mode(mode):
    return {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": later(days=1)}


def versions(s3, bucket):
    page = s3.list_object_versions(Bucket=bucket)
    return [entry["VersionId"] for entry in page.get("Versions", [])]


def test_versions_are_kept_covered_and_removed(s3, bucket):
    def listed(name):
        return [(e["VersionId"], e["IsLatest"]) for e in s3.list_object_versions(Bucket=bucket).get(name, [])]

    def got(**options):
        return s3.get_object(Bucket=bucket, Key="k", **options)["Body"].read()

    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one, two = put(s3, bucket, body=b"one"), put(s3, bucket, body=b"two")
    assert listed("Versions") == [(two, True), (one, False), ("null", False)]
    assert (got(), got(VersionId=one), got(VersionId="null")) == (b"two", b"one", b"before")
    covered = s3.delete_object(Bucket=bucket, Key="k")
    assert covered["DeleteMarker"] is True
    assert listed("DeleteMarkers") == [(covered["VersionId"], True)]
    refused(lambda: s3.get_object(Bucket=bucket, Key="k"), "NoSuchKey", 404)
    refused(lambda: s3.get_object(Bucket=bucket, Key="k", VersionId=covered["VersionId"]), "MethodNotAllowed", 405)
    refused(lambda: s3.head_object(Bucket=bucket, Key="k", VersionId=covered["VersionId"]), "405", 405)
    source = {"Bucket": bucket, "Key": "k", "VersionId": one}
    assert s3.copy_object(Bucket=bucket, Key="copied", CopySource=source)["CopySourceVersionId"] == one
    # Suspended: writes and deletes are of the null version, the others stay.
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert put(s3, bucket, body=b"suspended") == "null"
    assert got(VersionId="null") == b"suspended" and got(VersionId=two) == b"two"
    assert s3.delete_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    assert listed("DeleteMarkers") == [("null", True), (covered["VersionId"], False)]
    removed = s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert (removed["DeleteMarker"], removed["VersionId"]) == (True, "null")
    s3.delete_object(Bucket=bucket, Key="k", VersionId=covered["VersionId"])
    assert got() == b"two"
    refused(lambda: s3.get_object(Bucket=bucket, Key="k", VersionId="0" * 32), "NoSuchVersion", 404)
    refused(lambda: s3.get_object(Bucket=bucket, Key="k", VersionId="nonsense"), "InvalidArgument", 400)
    configuration = {"Status": "Enabled", "MFADelete": "Enabled"}
    with pytest.raises(ClientError):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=configuration, MFA="serial 123456")


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE", "HOLD"])
def test_nothing_removes_or_overwrites_a_protected_version(s3, locked, mode):
    options = {"ObjectLockLegalHoldStatus": "ON"} if mode == "HOLD" else in_mode(mode)
    version = put(s3, locked, **options)
    bypass = {"BypassGovernanceRetention": True} if mode != "GOVERNANCE" else {}
    refused(lambda: s3.delete_object(Bucket=locked, Key="k", VersionId=version, **bypass), "AccessDenied", 403)
    wanted = {"Objects": [{"Key": "k", "VersionId": version}, {"Key": "other"}]}
    answer = s3.delete_objects(Bucket=locked, Delete=wanted, **bypass)
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("k", "AccessDenied")]
    assert [e["Key"] for e in answer["Deleted"]] == ["other"]
    # What takes the key's name leaves the version.
    put(s3, locked, body=b"over it")
    s3.copy_object(Bucket=locked, Key="k", CopySource={"Bucket": locked, "Key": "k"}, MetadataDirective="REPLACE")
    upload = s3.create_multipart_upload(Bucket=locked, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=locked, Key="k", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=locked, Key="k", UploadId=upload, MultipartUpload=parts)
    assert s3.delete_object(Bucket=locked, Key="k")["DeleteMarker"] is True
    suspended = {"Status": "Suspended"}
    refused(lambda: s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration=suspended), "InvalidBucketState", 409)
    refused(lambda: s3.delete_bucket(Bucket=locked), "BucketNotEmpty", 409)
    assert s3.get_object(Bucket=locked, Key="k", VersionId=version)["Body"].read() == b"kept"
    assert version in versions(s3, locked)


def test_governance_is_bypassed_only_where_it_is_asked_for(s3, locked):
    version = put(s3, locked, **in_mode("GOVERNANCE"))
    where = dict(Bucket=locked, Key="k", VersionId=version)

    def retain(mode, until, **options):
        retention = {"Mode": mode, "RetainUntilDate": until} if mode else {}
        return lambda: s3.put_object_retention(**where, Retention=retention, **options)

    refused(retain("GOVERNANCE", later(hours=1)), "AccessDenied", 403)
    refused(retain("COMPLIANCE", later(hours=1)), "AccessDenied", 403)
    refused(retain(None, None), "AccessDenied", 403)
    retain("GOVERNANCE", later(days=2))()
    retain("GOVERNANCE", later(hours=1), BypassGovernanceRetention=True)()
    assert s3.get_object_retention(**where)["Retention"]["Mode"] == "GOVERNANCE"
    refused(lambda: s3.delete_object(**where), "AccessDenied", 403)
    s3.delete_object(**where, BypassGovernanceRetention=True)
    assert versions(s3, locked) == []
    version = where["VersionId"] = put(s3, locked, **in_mode("GOVERNANCE"))
    retain(None, None, BypassGovernanceRetention=True)()
    s3.delete_object(**where)


def test_compliance_is_only_extended(s3, locked):
    where = dict(Bucket=locked, Key="k", VersionId=put(s3, locked, **in_mode("COMPLIANCE")))
    until = s3.get_object_retention(**where)["Retention"]["RetainUntilDate"]
    for mode, date in [("COMPLIANCE", later(hours=1)), ("GOVERNANCE", later(days=9)), (None, None)]:
        retention = {"Mode": mode, "RetainUntilDate": date} if mode else {}
        options = dict(**where, Retention=retention, BypassGovernanceRetention=True)
        refused(lambda options=options: s3.put_object_retention(**options), "AccessDenied", 403)
    assert s3.get_object_retention(**where)["Retention"] == {"Mode": "COMPLIANCE", "RetainUntilDate": until}
    longer = later(days=2)
    s3.put_object_retention(**where, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": longer})
    head = s3.head_object(**where)
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", longer)


def test_a_hold_is_put_on_and_taken_off(s3, locked):
    where = dict(Bucket=locked, Key="k", VersionId=put(s3, locked))
    refused(lambda: s3.get_object_legal_hold(**where), "NoSuchObjectLockConfiguration", 404)
    refused(lambda: s3.get_object_retention(**where), "NoSuchObjectLockConfiguration", 404)
    s3.put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    assert s3.get_object_legal_hold(**where)["LegalHold"]["Status"] == "ON"
    assert s3.head_object(**where)["ObjectLockLegalHoldStatus"] == "ON"
    refused(lambda: s3.delete_object(**where, BypassGovernanceRetention=True), "AccessDenied", 403)
    refused(lambda: s3.put_object_legal_hold(**where, LegalHold={"Status": "MAYBE"}), "MalformedXML", 400)
    s3.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
    s3.delete_object(**where)
    assert versions(s3, locked) == []


def test_a_buckets_default_is_taken_by_every_kind_of_write(s3, locked):
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=configuration)
    assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == configuration
    put(s3, locked, "put")
    s3.copy_object(Bucket=locked, Key="copied", CopySource={"Bucket": locked, "Key": "put"})
    upload = s3.create_multipart_upload(Bucket=locked, Key="parts")["UploadId"]
    part = s3.upload_part(Bucket=locked, Key="parts", UploadId=upload, PartNumber=1, Body=b"p" * MIB)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=locked, Key="parts", UploadId=upload, MultipartUpload=parts)
    for key in ("put", "copied", "parts"):
        retention = s3.get_object_retention(Bucket=locked, Key=key)["Retention"]
        assert retention["Mode"] == "GOVERNANCE" and later(days=2) < retention["RetainUntilDate"] <= later(days=3, seconds=1), key
    # A write's own wish goes before the default; a default that changes later changes nothing that is there.
    put(s3, locked, "own", **in_mode("COMPLIANCE"))
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    assert s3.head_object(Bucket=locked, Key="own")["ObjectLockMode"] == "COMPLIANCE"
    assert s3.head_object(Bucket=locked, Key="put")["ObjectLockMode"] == "GOVERNANCE"
    put(s3, locked, "free")
    assert "ObjectLockMode" not in s3.head_object(Bucket=locked, Key="free")


def test_object_lock_is_turned_on_later_and_never_off(s3, bucket):
    enabled = {"ObjectLockEnabled": "Enabled"}
    refused(lambda: s3.get_object_lock_configuration(Bucket=bucket), "ObjectLockConfigurationNotFoundError", 404)
    on = dict(Bucket=bucket, ObjectLockConfiguration=enabled)
    refused(lambda: s3.put_object_lock_configuration(**on), "InvalidBucketState", 409)
    for options in (in_mode("GOVERNANCE"), {"ObjectLockLegalHoldStatus": "ON"}):
        refused(lambda options=options: put(s3, bucket, **options), "InvalidRequest", 400)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(**on)
    assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == enabled
    off = {"ObjectLockEnabled": "Disabled"}
    refused(lambda: s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=off), "MalformedXML", 400)
    put(s3, bucket, **in_mode("GOVERNANCE"))


def test_lock_headers_come_in_pairs_and_make_sense(s3, locked):
    mode, until = "ObjectLockMode", "ObjectLockRetainUntilDate"
    refused(lambda: put(s3, locked, **{mode: "GOVERNANCE"}), "InvalidArgument", 400)
    refused(lambda: put(s3, locked, **{until: later(days=1)}), "InvalidArgument", 400)
    refused(lambda: put(s3, locked, **{mode: "FOREVER", until: later(days=1)}), "InvalidArgument", 400)
    refused(lambda: put(s3, locked, **{mode: "GOVERNANCE", until: later(days=-1)}), "InvalidArgument", 400)
    refused(lambda: put(s3, locked, ObjectLockLegalHoldStatus="MAYBE"), "InvalidArgument", 400)
    assert versions(s3, locked) == []
