"""Headers and settings that have little to say: kept, fixed or refused, as docs/s3.md tells of each."""

import datetime

import pytest
from botocore.exceptions import ClientError

import trio
from harness import refused
from rawhttp import Connection, request


def test_headers_that_describe_an_object_come_back(shared, s3, bucket):
    kept = {
        "content-type": "application/dicom",
        "cache-control": "max-age=60, private",
        "content-disposition": "attachment; filename*=UTF-8''%C3%A5.dcm",
        "content-language": "sv, en",
        "expires": "Thu, 01 Dec 2050 16:00:00 GMT",
        "x-amz-meta-study": "17",
        "x-amz-website-redirect-location": "/elsewhere",
    }
    request(shared, "PUT", f"/{bucket}/k", headers={**kept, "content-encoding": "gzip"}, body=b"x")
    for method in ("GET", "HEAD"):
        answer = request(shared, method, f"/{bucket}/k")
        assert {name: answer.headers.get(name) for name in kept} == kept, answer
        assert answer.headers["content-encoding"] == "gzip"
    for sent, told in [("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip")]:
        request(shared, "PUT", f"/{bucket}/encoded", headers={"content-encoding": sent}, body=b"x")
        assert request(shared, "HEAD", f"/{bucket}/encoded").headers.get("content-encoding") == told, sent
    assert s3.put_object(Bucket=bucket, Key="none", Body=b"x")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert s3.head_object(Bucket=bucket, Key="none")["ContentType"] == "binary/octet-stream"
    with pytest.raises(ClientError):
        s3.put_object(Bucket=bucket, Key="k", Body=b"", WebsiteRedirectLocation="elsewhere")


def test_tags_come_with_a_write_and_are_counted(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"", Tagging="a=1&b=%C3%A5+%2B")
    wanted = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "å +"}]
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == wanted
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="copied", CopySource=source)
    assert s3.get_object_tagging(Bucket=bucket, Key="copied")["TagSet"] == wanted
    s3.copy_object(Bucket=bucket, Key="copied", CopySource=source, TaggingDirective="REPLACE", Tagging="c=3")
    assert s3.get_object_tagging(Bucket=bucket, Key="copied")["TagSet"] == [{"Key": "c", "Value": "3"}]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", Tagging="d=4")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload=parts)
    assert s3.get_object_tagging(Bucket=bucket, Key="parts")["TagSet"] == [{"Key": "d", "Value": "4"}]
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    assert "TagCount" not in s3.head_object(Bucket=bucket, Key="k")
    refused(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"", Tagging="a=1&a=2"), "InvalidArgument")


def test_a_buckets_tags_are_set_replaced_and_removed(s3, bucket):
    refused(lambda: s3.get_bucket_tagging(Bucket=bucket), "NoSuchTagSet", 404)
    for tags in ([{"Key": "a", "Value": "1"}], [{"Key": "b", "Value": ""}, {"Key": "c", "Value": "å"}]):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
        assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    refused(lambda: s3.get_bucket_tagging(Bucket=bucket), "NoSuchTagSet", 404)


def test_there_is_one_storage_class(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"", StorageClass="STANDARD")
    assert "StorageClass" not in s3.head_object(Bucket=bucket, Key="k")
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == "STANDARD"
    put = dict(Bucket=bucket, Key="k")
    for name in ("GLACIER", "STANDARD_IA", "nonsense"):
        refused(lambda name=name: s3.put_object(**put, Body=b"", StorageClass=name), "InvalidStorageClass")
        refused(lambda name=name: s3.create_multipart_upload(**put, StorageClass=name), "InvalidStorageClass")


def test_the_expected_owner_must_be_the_owner(s3, bucket):
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner=owner)
    other = "f" * 64
    for call in (
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"y", ExpectedBucketOwner=other),
        lambda: s3.get_object(Bucket=bucket, Key="k", ExpectedBucketOwner=other),
        lambda: s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner=other),
        lambda: s3.delete_bucket(Bucket=bucket, ExpectedBucketOwner=other),
    ):
        refused(call, "AccessDenied", 403)
    copy = dict(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "k"})
    s3.copy_object(**copy, ExpectedSourceBucketOwner=owner)
    refused(lambda: s3.copy_object(**copy, ExpectedSourceBucketOwner=other), "AccessDenied", 403)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_the_payer_is_the_owner(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", RequestPayer="requester")
    assert "RequestCharged" not in s3.get_object(Bucket=bucket, Key="k", RequestPayer="requester")
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "BucketOwner"})
    requester = {"Payer": "Requester"}
    refused(lambda: s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration=requester), "NotImplemented", 501)


def test_session_tokens_are_refused(shared, bucket):
    answer = request(shared, "GET", f"/{bucket}", headers={"x-amz-security-token": "token"})
    assert (answer.status, answer.code) == (400, "InvalidToken"), answer


def test_access_points_are_not_there(shared, bucket):
    source = "arn:aws:s3:us-east-1:123456789012:accesspoint/points/object/k"
    answer = request(shared, "PUT", f"/{bucket}/k", headers={"x-amz-copy-source": source})
    assert (answer.status, answer.code) == (501, "NotImplemented"), answer


def test_a_delete_can_be_conditional(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"123")
    head = s3.head_object(Bucket=bucket, Key="k")
    wrong = dict(Bucket=bucket, Key="k")
    refused(lambda: s3.delete_object(**wrong, IfMatch='"0123456789abcdef0123456789abcdef"'), "PreconditionFailed", 412)
    refused(lambda: s3.delete_object(**wrong, IfMatchSize=4), "PreconditionFailed", 412)
    past = head["LastModified"] - datetime.timedelta(days=1)
    refused(lambda: s3.delete_object(**wrong, IfMatchLastModifiedTime=past), "PreconditionFailed", 412)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"123"
    right = dict(IfMatch=head["ETag"], IfMatchSize=3, IfMatchLastModifiedTime=head["LastModified"])
    s3.delete_object(Bucket=bucket, Key="k", **right)
    refused(lambda: s3.head_object(Bucket=bucket, Key="k"), "404", 404)


def test_settings_with_one_value_are_told_and_kept(s3, bucket):
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    target = {"LoggingEnabled": {"TargetBucket": bucket, "TargetPrefix": "logs/"}}
    refused(lambda: s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=target), "NotImplemented", 501)
    notification = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert set(notification) == {"ResponseMetadata"}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    topic = {"TopicConfigurations": [{"TopicArn": "arn:aws:sns:us-east-1:1:t", "Events": ["s3:ObjectCreated:*"]}]}
    put = dict(Bucket=bucket, NotificationConfiguration=topic)
    refused(lambda: s3.put_bucket_notification_configuration(**put), "NotImplemented", 501)


def test_features_that_are_not_there_are_answered_as_unused(shared, s3, bucket):
    refused(lambda: s3.get_bucket_website(Bucket=bucket), "NoSuchWebsiteConfiguration", 404)
    refused(lambda: s3.get_bucket_replication(Bucket=bucket), "ReplicationConfigurationNotFoundError", 404)
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    for name in ("website", "replication"):
        assert request(shared, "DELETE", f"/{bucket}", query=[(name, "")]).status == 204, name
    for name in ("website", "replication", "accelerate", "analytics", "inventory", "metrics", "intelligent-tiering"):
        query = [(name, ""), ("id", "x")]
        answer = request(shared, "PUT", f"/{bucket}", query=query, body=b"<a/>")
        assert (answer.status, answer.code) == (501, "NotImplemented"), (name, answer)
    for name in ("analytics", "inventory", "metrics", "intelligent-tiering"):
        listed = request(shared, "GET", f"/{bucket}", query=[(name, "")])
        assert listed.status == 200 and b"<IsTruncated>false</IsTruncated>" in listed.body, (name, listed)
        one = request(shared, "GET", f"/{bucket}", query=[(name, ""), ("id", "x")])
        assert (one.status, one.code) == (404, "NoSuchConfiguration"), (name, one)


def test_operations_that_are_not_there_say_so(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for method, query in [
        ("POST", [("restore", "")]),
        ("POST", [("select", ""), ("select-type", "2")]),
        ("GET", [("torrent", "")]),
        ("PUT", [("renameObject", "")]),
        ("PUT", [("encryption", "")]),
    ]:
        answer = request(shared, method, f"/{bucket}/k", query=query, body=b"<a/>" if method != "GET" else b"")
        assert (answer.status, answer.code) == (501, "NotImplemented"), (query, answer)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_response_headers_are_not_overridden_for_strangers(make_server):
    """A public object is read by anybody, who can't make the server say what they like of it."""
    server = make_server(config=trio.CONFIG)
    main = trio.client(server, "main")
    main.create_bucket(Bucket="open-to-all")
    main.put_object(Bucket="open-to-all", Key="k", Body=b"x", ContentType="text/plain")
    main.put_public_access_block(Bucket="open-to-all", PublicAccessBlockConfiguration=trio.OPEN)
    main.put_bucket_policy(Bucket="open-to-all", Policy=trio.policy(trio.statement("open-to-all")))
    for target, status in (("/open-to-all/k", 200), ("/open-to-all/k?response-content-type=text%2Fhtml", 400)):
        with Connection(server) as connection:
            connection.send_head("GET", target, {"host": connection.host})
            answer = connection.read_response()
        assert answer.status == status, answer
        assert status == 200 or answer.code == "InvalidRequest", answer
