"""S3's limits: the last value that is allowed, the first that is not, and AWS's code for it."""

import hashlib

import rawhttp
from harness import MIB, refused
from rawhttp import UNSIGNED, Connection, Signer, request

GIB = 1 << 30
PART = b"p" * (5 * MIB)


def signed_xml(shared, method, path, query, xml):
    """A request whose body no SDK would let through."""
    md5 = rawhttp.binascii.b2a_base64(hashlib.md5(xml).digest(), newline=False).decode()
    return request(shared, method, path, query=query, body=xml, headers={"content-md5": md5})


def test_a_key_has_at_most_1024_bytes(s3, bucket):
    for key in ("k" * 1024, "ü" * 512):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
    for key in ("k" * 1025, "ü" * 512 + "k"):
        refused(lambda key=key: s3.put_object(Bucket=bucket, Key=key, Body=b"x"), "KeyTooLongError")
        refused(lambda key=key: s3.create_multipart_upload(Bucket=bucket, Key=key), "KeyTooLongError")
        source = {"Bucket": bucket, "Key": "k" * 1024}
        refused(lambda key=key, source=source: s3.copy_object(Bucket=bucket, Key=key, CopySource=source), "KeyTooLongError")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 2


def test_user_metadata_has_at_most_2_kib(s3, bucket):
    """AWS counts the bytes of names (without x-amz-meta-) and values."""
    fits = {"a" * 24: "v" * 1000, "b" * 24: "w" * 1000}
    s3.put_object(Bucket=bucket, Key="fits", Body=b"", Metadata=fits)
    assert s3.head_object(Bucket=bucket, Key="fits")["Metadata"] == fits
    over = {**fits, "a" * 24: "v" * 1001}
    refused(lambda: s3.put_object(Bucket=bucket, Key="over", Body=b"", Metadata=over), "MetadataTooLarge")
    refused(lambda: s3.create_multipart_upload(Bucket=bucket, Key="over", Metadata=over), "MetadataTooLarge")
    copy = dict(Bucket=bucket, Key="over", CopySource={"Bucket": bucket, "Key": "fits"}, MetadataDirective="REPLACE")
    refused(lambda: s3.copy_object(**copy, Metadata=over), "MetadataTooLarge")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def tags(count, key=lambda n: f"k{n}", value=lambda n: f"v{n}"):
    return [{"Key": key(n), "Value": value(n)} for n in range(count)]


def test_an_object_has_at_most_10_tags_of_128_and_256_characters(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")

    def put(tag_set):
        return lambda: s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tag_set})

    longest = tags(10, key=lambda n: f"{n}" * 128, value=lambda n: "ü" * 256)
    put(longest)()
    got = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert sorted(got, key=lambda tag: tag["Key"]) == longest
    refused(put(tags(11)), "BadRequest")
    refused(put(tags(1, key=lambda n: "k" * 129)), "InvalidTag")
    refused(put(tags(1, value=lambda n: "v" * 257)), "InvalidTag")
    refused(put([*tags(1), *tags(1)]), "InvalidTag")
    assert sorted(s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"], key=lambda tag: tag["Key"]) == longest
    eleven = "&".join(f"k{n}=v" for n in range(11))
    refused(lambda: s3.put_object(Bucket=bucket, Key="other", Body=b"", Tagging=eleven), "BadRequest")
    refused(lambda: s3.put_object(Bucket=bucket, Key="other", Body=b"", Tagging="k" * 129 + "=v"), "InvalidTag")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_a_bucket_has_at_most_50_tags(s3, bucket):
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags(50)})
    refused(lambda: s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags(51)}), "BadRequest")
    assert len(s3.get_bucket_tagging(Bucket=bucket)["TagSet"]) == 50


def test_delete_objects_takes_at_most_1000_keys(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="7", Body=b"")

    def delete(count):
        objects = "".join(f"<Object><Key>{n}</Key></Object>" for n in range(count))
        return signed_xml(shared, "POST", f"/{bucket}", [("delete", "")], f"<Delete>{objects}</Delete>".encode())

    for count in (0, 1001):
        response = delete(count)
        assert (response.status, response.code) == (400, "MalformedXML"), (count, response)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    response = delete(1000)
    assert response.status == 200 and response.body.count(b"<Deleted>") == 1000
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_pages_have_at_most_1000_entries(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=1001)["MaxKeys"] == 1000
    assert s3.list_objects(Bucket=bucket, MaxKeys=2**31 - 1)["MaxKeys"] == 1000
    assert s3.list_object_versions(Bucket=bucket, MaxKeys=1001)["MaxKeys"] == 1000
    assert s3.list_multipart_uploads(Bucket=bucket, MaxUploads=1001)["MaxUploads"] == 1000
    assert s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, MaxParts=1001)["MaxParts"] == 1000
    refused(lambda: s3.list_object_versions(Bucket=bucket, MaxKeys=-1), "InvalidArgument")


def test_a_body_beyond_5_gib_is_refused_before_it_is_sent(shared, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for query in ([], [("partNumber", "1"), ("uploadId", upload)]):
        for length in (5 * GIB + 1, 2**63, 2**64 + 5):
            with Connection(shared) as connection:
                headers = {"host": connection.host, "content-length": str(length), "expect": "100-continue"}
                signed = Signer().headers("PUT", f"/{bucket}/k", query, headers, UNSIGNED)
                target = f"/{bucket}/k" + ("?" + "&".join(f"{k}={v}" for k, v in query) if query else "")
                connection.send_head("PUT", target, signed)
                response = connection.read_response()
                assert response is not None and response.status == 400, (length, response)
                assert length > 2**63 or response.code == "EntityTooLarge", (length, response)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)


def test_a_decoded_length_beyond_5_gib_is_refused_too(shared, bucket):
    response = request(
        shared,
        "PUT",
        f"/{bucket}/k",
        payload_hash=rawhttp.STREAMING_UNSIGNED_TRAILER,
        headers={"x-amz-decoded-content-length": str(5 * GIB + 1), "x-amz-trailer": "x-amz-checksum-crc32"},
        body=rawhttp.unsigned_chunked([b"x"]),
    )
    assert (response.status, response.code) == (400, "EntityTooLarge"), response


def test_an_upload_has_at_most_10000_parts(shared, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=10_000, Body=b"last")["ETag"]
    for number in (0, 10_001, 65_537):
        part = dict(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number)
        refused(lambda part=part: s3.upload_part(**part, Body=b"x"), "InvalidArgument")
        source = {"Bucket": bucket, "Key": "none"}
        refused(lambda part=part, source=source: s3.upload_part_copy(**part, CopySource=source), "InvalidArgument")

    def complete(numbers):
        parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n in numbers)
        xml = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        return signed_xml(shared, "POST", f"/{bucket}/k", [("uploadId", upload)], xml)

    response = complete(range(1, 10_002))
    assert response.status == 400 and response.code in ("InvalidArgument", "MalformedXML"), response
    response = complete([])
    assert (response.status, response.code) == (400, "MalformedXML"), response
    response = complete([10_000])
    assert response.status == 200 and response.code is None, response
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"last"


def test_a_part_below_5_mib_can_only_be_the_last(s3, bucket):
    def complete(bodies):
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        parts = []
        for number, body in enumerate(bodies, 1):
            answer = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        return lambda: s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}
        )

    refused(complete([PART, PART[:-1], PART]), "EntityTooSmall")
    refused(complete([PART[:-1], b"last"]), "EntityTooSmall")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    complete([PART, PART, b""])()
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 10 * MIB
    complete([b"alone"])()
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 5


def test_a_completion_document_is_bounded(shared, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    response = signed_xml(shared, "POST", f"/{bucket}/k", [("uploadId", upload)], b" " * (9 * MIB))
    assert response is None or response.status == 400, response
    assert s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["UploadId"] == upload


def test_an_object_lock_period_and_date_are_bounded(s3):
    import datetime

    s3.create_bucket(Bucket="limits-lock", ObjectLockEnabledForBucket=True)

    def default(**period):
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", **period}}
        configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        return lambda: s3.put_object_lock_configuration(Bucket="limits-lock", ObjectLockConfiguration=configuration)

    default(Days=36_500)()
    default(Years=100)()
    for period in ({"Days": 0}, {"Days": 36_501}, {"Years": 0}, {"Years": 101}):
        refused(default(**period), "InvalidRetentionPeriod")
    for period in ({}, {"Days": 1, "Years": 1}):
        refused(default(**period), "MalformedXML")
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    put = dict(Bucket="limits-lock", Key="k", Body=b"", ObjectLockMode="GOVERNANCE")
    refused(lambda: s3.put_object(**put, ObjectLockRetainUntilDate=past), "InvalidArgument")


def test_a_presigned_url_lives_at_most_a_week(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for expires, status in ((604_800, 200), (604_801, 400)):
        params = {"Bucket": bucket, "Key": "k"}
        url = shared.s3(signature_version="s3v4").generate_presigned_url("get_object", params, ExpiresIn=expires)
        with Connection(shared) as connection:
            connection.send_head("GET", url.split(connection.host, 1)[1], {"host": connection.host})
            response = connection.read_response()
        assert response.status == status, response
        assert status == 200 or response.code == "AuthorizationQueryParametersError", response


def test_response_headers_are_overridden_by_signed_requests_only(shared, s3, bucket):
    """AWS: response-* parameters can't be used with an unsigned (anonymous) request."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/plain")
    overrides = {
        "ResponseCacheControl": "no-store",
        "ResponseContentDisposition": 'attachment; filename="a b"',
        "ResponseContentEncoding": "gzip",
        "ResponseContentLanguage": "sv",
        "ResponseContentType": "application/dicom",
        "ResponseExpires": "Thu, 01 Dec 2050 16:00:00 GMT",
    }
    for got in (s3.get_object(Bucket=bucket, Key="k", **overrides), s3.head_object(Bucket=bucket, Key="k", **overrides)):
        headers = got["ResponseMetadata"]["HTTPHeaders"]
        assert {name: headers[name] for name in ("cache-control", "content-type", "content-language", "expires")} == {
            "cache-control": "no-store",
            "content-type": "application/dicom",
            "content-language": "sv",
            "expires": "Thu, 01 Dec 2050 16:00:00 GMT",
        }
        assert headers["content-disposition"] == 'attachment; filename="a b"' and headers["content-encoding"] == "gzip"
    params = {"Bucket": bucket, "Key": "k", "ResponseContentType": "a/b"}
    url = shared.s3(signature_version="s3v4").generate_presigned_url("get_object", params)
    with Connection(shared) as connection:
        connection.send_head("GET", url.split(connection.host, 1)[1], {"host": connection.host})
        response = connection.read_response()
        assert response.status == 200 and response.headers["content-type"] == "a/b", response
