"""Bucket policies: who gets in by them and who does not, as AWS's user guide and IAM's reference of policy elements say."""

import datetime
import json
import random
import urllib.request
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError

import trio
from harness import error_code, error_status, refused
from trio import OPEN, arn, policy, statement


@pytest.fixture
def bucket(main):
    """A bucket of main's with one object `k`, and no public access blocked."""
    name = f"bucket-{random.randrange(10**12):012d}"
    main.create_bucket(Bucket=name)
    main.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=OPEN)
    main.put_object(Bucket=name, Key="k", Body=b"body")
    return name


def reads(client, bucket, key="k", **options) -> bool:
    """Whether somebody gets the object; being refused is 403 and nothing else."""
    try:
        return client.get_object(Bucket=bucket, Key=key, **options)["Body"].read() == b"body"
    except ClientError as error:
        assert (error_code(error), error_status(error)) == ("AccessDenied", 403), error
        return False


def test_a_policy_is_kept_as_it_came_until_it_is_deleted(main, bucket):
    refused(lambda: main.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy", 404)
    assert main.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is False
    text = policy(statement(bucket, principal=arn("alt"), Sid="readers")) + "\n "
    answer = main.put_bucket_policy(Bucket=bucket, Policy=text)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert main.get_bucket_policy(Bucket=bucket)["Policy"] == text
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket)), ConfirmRemoveSelfBucketAccess=True)
    assert main.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is True
    for _ in range(2):
        assert main.delete_bucket_policy(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(lambda: main.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy", 404)


def test_a_policy_that_the_grammar_does_not_have_is_refused_in_awss_words(main, bucket):
    good = statement(bucket)
    for text, message in [
        ("", None),
        ("[]", "Policies must be valid JSON and the first byte must be '{'"),
        ("{", "Policies must be valid JSON and the first byte must be '{'"),
        (" " + policy(good), "Policies must be valid JSON and the first byte must be '{'"),
        (json.dumps({"Version": "2012-10-17"}), "Missing required field Statement"),
        (json.dumps({"Version": "2020-01-01", "Statement": [good]}), "The policy must contain a valid version string"),
        (policy({**good, "Effect": "Maybe"}), "Invalid effect: Maybe"),
        (policy({**good, "Principal": {"AWS": "arn:aws:s3:::x"}}), "Invalid principal in policy"),
        (policy({**good, "Action": "s3:ReadObject"}), "Policy has invalid action"),
        (policy({**good, "Resource": "arn:aws:s3:::another/*"}), "Policy has invalid resource"),
        (policy(statement(bucket, resource="")), "Action does not apply to any resource(s) in statement"),
        (policy({**good, "Extra": 1}), "Unknown field Extra"),
        (policy({**good, "Condition": {"StringIs": {"s3:prefix": "a"}}}), "Invalid Condition type : StringIs"),
        (policy({**good, "Condition": {"StringEquals": {"s3:prefx": "a"}}}), "Policy has an invalid condition key"),
        (policy(*[{**good, "Sid": "x" * 200} for _ in range(80)]), "Policy exceeds the maximum allowed document size."),
    ]:
        code = "MalformedPolicy" if text else "MissingRequestBodyError"
        answer = refused(lambda text=text: main.put_bucket_policy(Bucket=bucket, Policy=text), code, 400)
        assert message is None or answer["Error"]["Message"] == message
    refused(lambda: main.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy")
    # 20 KiB are allowed.
    spare = 20 * 1024 - len(policy({**good, "Sid": ""}))
    main.put_bucket_policy(Bucket=bucket, Policy=policy({**good, "Sid": "x" * spare}))


def test_without_a_policy_others_are_refused_and_learn_no_more(main, alt, nobody, bucket):
    for other in (alt, nobody):
        assert not reads(other, bucket)
        # Not 404: that a key does not exist is for those who may list.
        assert not reads(other, bucket, "absent")
        for call in (
            lambda c=other: c.list_objects_v2(Bucket=bucket),
            lambda c=other: c.put_object(Bucket=bucket, Key="n", Body=b""),
            lambda c=other: c.delete_object(Bucket=bucket, Key="k"),
            lambda c=other: c.get_bucket_policy(Bucket=bucket),
            lambda c=other: c.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket))),
            lambda c=other: c.delete_bucket(Bucket=bucket),
            lambda c=other: c.create_multipart_upload(Bucket=bucket, Key="n"),
        ):
            refused(call, "AccessDenied", 403)
    refused(lambda: alt.create_bucket(Bucket=bucket), "BucketAlreadyExists", 409)
    assert reads(main, bucket)


@pytest.mark.parametrize(
    "principal",
    [
        arn("alt"),
        {"AWS": "arn:aws:iam::alt-study:root"},
        {"AWS": "arn:aws:iam:::user/alt"},
        {"AWS": f"arn:aws:iam:::user/{trio.ID['alt']}"},
        {"AWS": ["arn:aws:iam:::user/nobody", trio.ID["alt"]]},
        {"AWS": "alt-study"},
        {"CanonicalUser": trio.ID["alt"]},
    ],
    ids=str,
)
def test_whom_a_policy_names_gets_in_and_nobody_else(main, alt, third, nobody, bucket, principal):
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=principal)))
    assert reads(alt, bucket)
    assert not reads(third, bucket)
    assert not reads(nobody, bucket)
    refused(lambda: alt.put_object(Bucket=bucket, Key="k", Body=b""))
    # Who may not list is not told what is not there.
    assert not reads(alt, bucket, "absent")
    assert main.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is False
    main.delete_bucket_policy(Bucket=bucket)
    assert not reads(alt, bucket)


def test_who_may_list_is_told_that_a_key_is_absent(main, alt, bucket):
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(statement(bucket, principal=arn("alt"), action=["s3:GetObject", "s3:ListBucket"], resource=["", "/*"])),
    )
    refused(lambda: alt.get_object(Bucket=bucket, Key="absent"), "NoSuchKey", 404)
    assert [entry["Key"] for entry in alt.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


def test_a_deny_outweighs_every_allow_and_binds_members_too(main, alt, bucket):
    for statements in (
        [statement(bucket, principal=arn("alt")), statement(bucket, effect="Deny", principal=arn("alt"), resource="/secret*")],
        [statement(bucket, effect="Deny", principal=arn("alt"), resource="/secret*"), statement(bucket, principal=arn("alt"))],
    ):
        main.put_bucket_policy(Bucket=bucket, Policy=policy(*statements))
        main.put_object(Bucket=bucket, Key="secret", Body=b"body")
        assert reads(alt, bucket)
        assert not reads(alt, bucket, "secret")
        assert reads(main, bucket, "secret")
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, effect="Deny", action="s3:*", resource=["", "/*"])))
    assert not reads(main, bucket)
    refused(lambda: main.list_objects_v2(Bucket=bucket))
    refused(lambda: main.delete_bucket(Bucket=bucket))
    # Whoever locked everybody out can still repair it, as the account's root user can in AWS.
    assert "Deny" in main.get_bucket_policy(Bucket=bucket)["Policy"]
    main.delete_bucket_policy(Bucket=bucket)
    assert reads(main, bucket)


def test_not_principal_not_action_and_not_resource(main, alt, third, bucket):
    main.put_object(Bucket=bucket, Key="open/k", Body=b"body")
    everybody = statement(bucket, action="s3:*", resource=["", "/*"])
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(everybody, statement(bucket, effect="Deny", action="s3:*", NotPrincipal={"AWS": [arn("alt")["AWS"], arn("main")["AWS"]]})),
    )
    assert reads(alt, bucket) and not reads(third, bucket)
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, NotAction=["s3:Put*", "s3:Delete*"], principal=arn("alt"))))
    assert reads(alt, bucket)
    refused(lambda: alt.delete_object(Bucket=bucket, Key="k"))
    main.put_bucket_policy(
        Bucket=bucket, Policy=policy(everybody, statement(bucket, effect="Deny", NotResource=f"arn:aws:s3:::{bucket}/open/*"))
    )
    assert reads(alt, bucket, "open/k") and not reads(alt, bucket)
    refused(
        lambda: main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, NotPrincipal=arn("alt")))),
        "MalformedPolicy",
    )


def test_resources_have_wildcards_and_variables(main, alt, third, bucket):
    for key in ("home/alt/k", "home/third/k", "a1/k", "a22/k"):
        main.put_object(Bucket=bucket, Key=key, Body=b"body")
    main.put_bucket_policy(
        Bucket=bucket, Policy=policy(statement(bucket, resource=["/home/${aws:username}/*", "/a?/*"], principal={"AWS": "*"}))
    )
    assert reads(alt, bucket, "home/alt/k") and not reads(alt, bucket, "home/third/k")
    assert reads(third, bucket, "home/third/k")
    assert reads(alt, bucket, "a1/k") and not reads(alt, bucket, "a22/k")


def test_the_public_gets_in_only_where_nothing_blocks_it(main, alt, nobody, bucket):
    public = policy(statement(bucket))
    main.put_bucket_policy(Bucket=bucket, Policy=public)
    assert reads(nobody, bucket) and reads(alt, bucket)
    # Over a bare URL, as a browser asks.
    url = f"{nobody.meta.endpoint_url}/{bucket}/k"
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"body"
    # RestrictPublicBuckets: a public policy is for members only, whoever else it names.
    main.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**OPEN, "RestrictPublicBuckets": True})
    assert not reads(nobody, bucket) and not reads(alt, bucket) and reads(main, bucket)
    with pytest.raises(HTTPError) as error:
        urllib.request.urlopen(url)
    assert error.value.code == 403
    # BlockPublicPolicy: it can't be set, and what is there stays.
    main.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**OPEN, "BlockPublicPolicy": True})
    assert reads(nobody, bucket)
    refused(lambda: main.put_bucket_policy(Bucket=bucket, Policy=public), "AccessDenied", 403)
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"))))
    assert reads(alt, bucket) and not reads(nobody, bucket)
    # A new bucket blocks all of it, and one whose block was removed nothing.
    main.delete_public_access_block(Bucket=bucket)
    refusal = refused(lambda: main.get_public_access_block(Bucket=bucket), "NoSuchPublicAccessBlockConfiguration", 404)
    assert refusal["Error"]["BucketName"] == bucket
    refused(lambda: main.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={}), "InvalidRequest", 400)
    main.put_bucket_policy(Bucket=bucket, Policy=public)
    assert reads(nobody, bucket)
    other = f"{bucket}-new"
    main.create_bucket(Bucket=other)
    assert all(main.get_public_access_block(Bucket=other)["PublicAccessBlockConfiguration"].values())
    refused(lambda: main.put_bucket_policy(Bucket=other, Policy=policy(statement(other))), "AccessDenied", 403)


def test_a_policy_narrowed_to_fixed_values_is_not_public(main, bucket):
    for condition, public in [
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, False),
        ({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}, True),
        ({"StringEquals": {"aws:SourceVpc": "vpc-1"}}, False),
        ({"StringLike": {"aws:SourceVpc": "vpc-*"}}, True),
        ({"Bool": {"aws:SecureTransport": "true"}}, True),
    ]:
        main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, Condition=condition)))
        assert main.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is public, condition


def iso(hours: int) -> str:
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    "condition, expected",
    [
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
        ({"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8::/32"]}}, False),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.1"}}, False),
        ({"Bool": {"aws:SecureTransport": "false"}}, True),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": iso(-1)}, "DateLessThan": {"aws:CurrentTime": iso(1)}}, True),
        ({"DateLessThan": {"aws:CurrentTime": iso(-1)}}, False),
        ({"NumericGreaterThan": {"aws:EpochTime": 1_700_000_000}}, True),
        ({"StringEquals": {"aws:username": "alt"}}, True),
        ({"StringNotEquals": {"aws:username": "alt"}}, False),
        ({"StringLike": {"aws:UserAgent": "Boto3/*"}}, True),
        ({"StringEqualsIgnoreCase": {"s3:ExistingObjectTag/Class": "OPEN"}}, True),
        ({"StringEquals": {"s3:ExistingObjectTag/Class": "OPEN"}}, False),
        ({"StringEquals": {"s3:ExistingObjectTag/class": "open"}}, False),
        ({"Null": {"s3:ExistingObjectTag/Absent": "true"}}, True),
        ({"Null": {"s3:ExistingObjectTag/Class": "true"}}, False),
        ({"StringEquals": {"s3:ExistingObjectTag/Absent": "x"}}, False),
        ({"StringEqualsIfExists": {"s3:ExistingObjectTag/Absent": "x"}}, True),
        ({"StringNotEquals": {"s3:ExistingObjectTag/Absent": "x"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::alt-study:user/*"}}, True),
        ({"StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}, "NumericLessThan": {"s3:signatureAge": 600000}}, True),
        ({"StringEquals": {"s3:authType": "REST-QUERY-STRING"}}, False),
        ({"StringEquals": {"aws:username": "alt"}, "IpAddress": {"aws:SourceIp": "192.0.2.1"}}, False),
    ],
    ids=str,
)
def test_conditions_on_reading(main, alt, bucket, condition, expected):
    main.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "Class", "Value": "open"}]})
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, Condition=condition)))
    assert reads(alt, bucket) is expected
    # The same condition on a Deny refuses exactly those whom it let in.
    both = [statement(bucket), statement(bucket, effect="Deny", Condition=condition)]
    main.put_bucket_policy(Bucket=bucket, Policy=policy(*both))
    assert reads(alt, bucket) is not expected


def test_conditions_on_listing(main, alt, bucket):
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(
            statement(
                bucket,
                action="s3:ListBucket",
                resource="",
                Condition={
                    "StringLike": {"s3:prefix": ["home/${aws:username}/*", "open*"]},
                    "NumericLessThanEquals": {"s3:max-keys": 10},
                },
            )
        ),
    )
    alt.list_objects_v2(Bucket=bucket, Prefix="home/alt/", MaxKeys=10)
    alt.list_objects(Bucket=bucket, Prefix="open", MaxKeys=1)
    for options in ({"Prefix": "home/third/", "MaxKeys": 1}, {"Prefix": "open", "MaxKeys": 11}, {"MaxKeys": 1}, {"Prefix": "open"}):
        refused(lambda options=options: alt.list_objects_v2(Bucket=bucket, **options))


def test_conditions_on_writing(main, alt, bucket):
    tagged = {
        "StringEquals": {"s3:RequestObjectTag/Study": ["a", "b"]},
        "ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["Study", "Site"]},
    }
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, action="s3:PutObject", Condition=tagged)))
    alt.put_object(Bucket=bucket, Key="n", Body=b"", Tagging="Study=a")
    alt.put_object(Bucket=bucket, Key="n", Body=b"", Tagging="Study=b&Site=x")
    for tagging in ("Study=c", "Site=x", "Study=a&Other=x"):
        refused(lambda tagging=tagging: alt.put_object(Bucket=bucket, Key="n", Body=b"", Tagging=tagging))
    refused(lambda: alt.put_object(Bucket=bucket, Key="n", Body=b""))
    main.put_bucket_policy(
        Bucket=bucket,
        Policy=policy(
            statement(bucket, action="s3:PutObject", Condition={"ForAnyValue:StringEquals": {"s3:RequestObjectTagKeys": "Study"}})
        ),
    )
    alt.put_object(Bucket=bucket, Key="n", Body=b"", Tagging="Study=c&Other=x")
    refused(lambda: alt.put_object(Bucket=bucket, Key="n", Body=b"", Tagging="Other=x"))
    encrypted = statement(
        bucket, effect="Deny", action="s3:PutObject", Condition={"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}}
    )
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, action="s3:PutObject"), encrypted))
    alt.put_object(Bucket=bucket, Key="n", Body=b"", ServerSideEncryption="AES256")
    refused(lambda: alt.put_object(Bucket=bucket, Key="n", Body=b""))
    # A condition that binds everybody binds members as well.
    refused(lambda: main.put_object(Bucket=bucket, Key="n", Body=b""))


def test_tags_of_a_new_object_can_be_denied(main, alt, bucket):
    main.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    allow = statement(bucket, principal=arn("alt"), action=["s3:PutObject", "s3:GetObject"])
    deny = statement(bucket, effect="Deny", principal=arn("alt"), action="s3:PutObjectTagging")
    main.put_bucket_policy(Bucket=bucket, Policy=policy(allow, deny))
    alt.put_object(Bucket=bucket, Key="n", Body=b"")
    for call in (
        lambda: alt.put_object(Bucket=bucket, Key="n", Body=b"", Tagging="a=b"),
        lambda: alt.create_multipart_upload(Bucket=bucket, Key="n", Tagging="a=b"),
        # A copy brings its source's tags with it.
        lambda: alt.copy_object(Bucket=bucket, Key="n", CopySource=f"{bucket}/k"),
        lambda: alt.put_object_tagging(Bucket=bucket, Key="n", Tagging={"TagSet": []}),
    ):
        refused(call, "AccessDenied", 403)
    alt.copy_object(Bucket=bucket, Key="n", CopySource=f"{bucket}/k", TaggingDirective="REPLACE")


def test_a_presigned_url_has_the_rights_of_who_signed_it(main, alt, third, bucket):
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"))))
    for client, status in ((alt, 200), (third, 403)):
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
        try:
            with urllib.request.urlopen(url) as answer:
                assert (answer.status, answer.read()) == (status, b"body")
        except HTTPError as error:
            assert error.code == status
    only_headers = statement(bucket, effect="Deny", Condition={"StringNotEquals": {"s3:authType": "REST-HEADER"}})
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt")), only_headers))
    assert reads(alt, bucket)
    with pytest.raises(HTTPError) as error:
        urllib.request.urlopen(alt.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
    assert error.value.code == 403


def test_others_write_copy_and_upload_parts_as_far_as_the_policy_lets_them(main, alt, bucket):
    theirs = f"{bucket}-alt"
    alt.create_bucket(Bucket=theirs)
    source = {"Bucket": bucket, "Key": "k"}
    refused(lambda: alt.copy_object(Bucket=theirs, Key="copy", CopySource=source))
    main.put_bucket_policy(
        Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"), action=["s3:GetObject", "s3:PutObject"]))
    )
    alt.copy_object(Bucket=theirs, Key="copy", CopySource=source)
    assert alt.get_object(Bucket=theirs, Key="copy")["Body"].read() == b"body"
    refused(lambda: alt.delete_object(Bucket=bucket, Key="k"))
    upload = alt.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    etag = alt.upload_part(**part, PartNumber=1, Body=b"part")["ETag"]
    # Who began it may look at it and give it up; ListBucketMultipartUploads is another right.
    assert len(alt.list_parts(**part)["Parts"]) == 1
    refused(lambda: alt.list_multipart_uploads(Bucket=bucket))
    alt.complete_multipart_upload(**part, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert main.get_object(Bucket=bucket, Key="parts")["Body"].read() == b"part"
    upload = alt.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    alt.abort_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload)
    # With ACLs off, what others wrote is the bucket owner's.
    listed = main.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    assert {entry["Owner"]["ID"] for entry in listed} == {trio.ID["main"]}


def test_many_deletes_are_judged_key_by_key(main, alt, bucket):
    main.put_object(Bucket=bucket, Key="drop/1", Body=b"")
    main.put_bucket_policy(
        Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"), action="s3:DeleteObject", resource="/drop/*"))
    )
    answer = alt.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "drop/1"}, {"Key": "k"}]})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["drop/1"]
    assert [(entry["Key"], entry["Code"]) for entry in answer["Errors"]] == [("k", "AccessDenied")]
    assert reads(main, bucket)


def test_versions_need_a_right_of_their_own(main, alt, bucket):
    main.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = main.put_object(Bucket=bucket, Key="k", Body=b"body")["VersionId"]
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"))))
    assert reads(alt, bucket) and not reads(alt, bucket, VersionId=version)
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"), action="s3:GetObjectVersion")))
    assert reads(alt, bucket, VersionId=version) and not reads(alt, bucket)


def test_a_public_list_is_told_by_the_policy_status(main, bucket):
    def status():
        return main.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]

    assert status() is False
    main.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    for acl in ("public-read", "authenticated-read"):
        main.put_bucket_acl(Bucket=bucket, ACL=acl)
        assert status() is True
    # Ignored lists make nothing public, and a policy for few says nothing of them.
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"))))
    assert status() is True
    main.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**OPEN, "IgnorePublicAcls": True})
    assert status() is False


def test_a_policy_judges_encryption_headers_before_anybody_else_does(main, bucket):
    key = "s3:x-amz-server-side-encryption"
    others = {"StringNotEquals": {key: "AES256"}}
    main.put_bucket_policy(
        Bucket=bucket, Policy=policy(statement(bucket, "Deny", action="s3:PutObject", Condition=others))
    )
    main.put_object(Bucket=bucket, Key="k", Body=b"", ServerSideEncryption="AES256")
    for call in (
        lambda: main.put_object(Bucket=bucket, Key="k", Body=b"", ServerSideEncryption="AES192"),
        lambda: main.create_multipart_upload(Bucket=bucket, Key="k", ServerSideEncryption="AES192"),
        lambda: main.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k", ServerSideEncryption="AES192"),
    ):
        refused(call, "AccessDenied", 403)
