"""ACLs and ownership controls, as AWS's "Access control list (ACL) overview" and "Controlling ownership of objects" say."""

import random

import pytest
from botocore.exceptions import ClientError

import trio
from harness import error_code, error_status, refused
from trio import ALL_USERS, AUTHENTICATED, ID, OPEN, arn, policy, statement


@pytest.fixture
def make_bucket(main):
    """Makes buckets of main's with ACLs on and nothing blocked."""

    def make(ownership="ObjectWriter", **options):
        name = f"bucket-{random.randrange(10**12):012d}"
        main.create_bucket(Bucket=name, ObjectOwnership=ownership, **options)
        main.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=OPEN)
        return name

    return make


@pytest.fixture
def bucket(make_bucket):
    return make_bucket()


def may(call) -> bool:
    try:
        call()
        return True
    except ClientError as error:
        assert (error_code(error), error_status(error)) == ("AccessDenied", 403), error
        return False


def grants(answer) -> list[tuple[str, str]]:
    """Who has what: a canonical id or a group's URI, and the permission."""
    return [(one["Grantee"].get("ID") or one["Grantee"]["URI"], one["Permission"]) for one in answer["Grants"]]


def user(name: str) -> dict:
    return {"Type": "CanonicalUser", "ID": ID[name]}


OWN = (ID["main"], "FULL_CONTROL")


def test_a_new_bucket_has_acls_off(main, alt, make_bucket):
    bucket = make_bucket("BucketOwnerEnforced")
    rules = main.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    answer = main.get_bucket_acl(Bucket=bucket)
    assert answer["Owner"] == {"ID": ID["main"], "DisplayName": "Main"}
    assert grants(answer) == [OWN]
    assert answer["Grants"][0]["Grantee"] == {"Type": "CanonicalUser", "ID": ID["main"], "DisplayName": "Main"}
    main.put_object(Bucket=bucket, Key="k", Body=b"", ACL="bucket-owner-full-control")
    assert grants(main.get_object_acl(Bucket=bucket, Key="k")) == [OWN]
    for call in (
        lambda: main.put_bucket_acl(Bucket=bucket, ACL="public-read"),
        lambda: main.put_object_acl(Bucket=bucket, Key="k", ACL="public-read"),
        lambda: main.put_object(Bucket=bucket, Key="k", Body=b"", ACL="public-read"),
        lambda: main.put_object(Bucket=bucket, Key="k", Body=b"", GrantRead=f"id={ID['alt']}"),
        lambda: main.create_multipart_upload(Bucket=bucket, Key="k", ACL="authenticated-read"),
        lambda: main.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k", ACL="public-read"),
    ):
        refused(call, "AccessControlListNotSupported", 400)
    main.put_bucket_acl(Bucket=bucket, ACL="bucket-owner-full-control")
    owner = main.get_bucket_acl(Bucket=bucket)
    main.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": owner["Owner"], "Grants": owner["Grants"]})
    for options in ({"ACL": "public-read"}, {"GrantRead": f"id={ID['alt']}"}):
        refused(
            lambda options=options: main.create_bucket(Bucket=f"{bucket}-2", **options), "InvalidBucketAclWithObjectOwnership", 400
        )


def test_ownership_controls_are_set_and_removed(main, bucket):
    def put(ownership):
        main.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": ownership}]})

    def get():
        return main.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"][0]["ObjectOwnership"]

    assert get() == "ObjectWriter"
    put("BucketOwnerPreferred")
    assert get() == "BucketOwnerPreferred"
    refused(lambda: put("Nobody"), "MalformedXML", 400)
    # ACLs can't be turned off while the bucket's grants to others.
    main.put_bucket_acl(Bucket=bucket, GrantRead=f"id={ID['alt']}", GrantFullControl=f"id={ID['main']}")
    refused(lambda: put("BucketOwnerEnforced"), "InvalidBucketAclWithObjectOwnership", 400)
    main.put_bucket_acl(Bucket=bucket, ACL="private")
    put("BucketOwnerEnforced")
    for _ in range(2):
        main.delete_bucket_ownership_controls(Bucket=bucket)
    assert refused(get, "OwnershipControlsNotFoundError", 404)["Error"]["BucketName"] == bucket
    # Without controls a bucket is as before there were any: its ACLs count.
    main.put_bucket_acl(Bucket=bucket, ACL="public-read")
    refused(
        lambda: main.create_bucket(Bucket=f"{bucket}-2", ObjectOwnership="Nobody"), "InvalidArgument", 400
    )


@pytest.mark.parametrize(
    "canned, others",
    [
        ("private", []),
        ("public-read", [(ALL_USERS, "READ")]),
        ("public-read-write", [(ALL_USERS, "READ"), (ALL_USERS, "WRITE")]),
        ("authenticated-read", [(AUTHENTICATED, "READ")]),
    ],
)
def test_canned_acls(main, alt, nobody, make_bucket, canned, others):
    bucket = make_bucket()
    main.put_bucket_acl(Bucket=bucket, ACL=canned)
    assert grants(main.get_bucket_acl(Bucket=bucket)) == [*others, OWN]
    main.put_object(Bucket=bucket, Key="k", Body=b"body", ACL=canned)
    assert grants(main.get_object_acl(Bucket=bucket, Key="k")) == [*others, OWN]
    main.put_object(Bucket=bucket, Key="p", Body=b"body")
    assert grants(main.get_object_acl(Bucket=bucket, Key="p")) == [OWN]
    main.put_object_acl(Bucket=bucket, Key="p", ACL=canned)
    assert grants(main.get_object_acl(Bucket=bucket, Key="p")) == [*others, OWN]
    for client, groups in ((alt, {ALL_USERS, AUTHENTICATED}), (nobody, {ALL_USERS})):
        can = {permission for group, permission in others if group in groups}
        assert may(lambda c=client: c.get_object(Bucket=bucket, Key="k")) == ("READ" in can)
        assert may(lambda c=client: c.list_objects_v2(Bucket=bucket)) == ("READ" in can)
        assert may(lambda c=client: c.put_object(Bucket=bucket, Key="n", Body=b"")) == ("WRITE" in can)
        assert not may(lambda c=client: c.get_object_acl(Bucket=bucket, Key="k"))
        assert not may(lambda c=client: c.put_bucket_acl(Bucket=bucket, ACL="private"))
        assert not may(lambda c=client: c.delete_object(Bucket=bucket, Key="k"))
        assert not may(lambda c=client: c.get_bucket_policy(Bucket=bucket))
    assert may(lambda: main.get_object(Bucket=bucket, Key="k"))


def test_a_bucket_is_created_with_its_acl(main, alt, make_bucket):
    name = f"bucket-{random.randrange(10**12):012d}"
    refused(
        lambda: main.create_bucket(Bucket=name, ObjectOwnership="ObjectWriter", ACL="public-read"),
        "InvalidBucketAclWithBlockPublicAccessError",
        400,
    )
    bucket = make_bucket(GrantRead=f'id="{ID["alt"]}"', GrantFullControl=f"id={ID['main']}")
    assert sorted(grants(main.get_bucket_acl(Bucket=bucket))) == sorted([OWN, (ID["alt"], "READ")])
    assert may(lambda: alt.list_objects_v2(Bucket=bucket))


def test_an_operator_may_have_new_buckets_made_open(make_server):
    opened = '[gateway.new_buckets]\nobject_ownership = "ObjectWriter"\npublic_access_block = false\n'
    server = make_server(config=trio.CONFIG + opened)
    main, nobody = trio.client(server, "main"), trio.client(server, None)
    main.create_bucket(Bucket="open", ACL="public-read")
    main.put_object(Bucket="open", Key="k", Body=b"", ACL="public-read")
    assert may(lambda: nobody.list_objects_v2(Bucket="open")) and may(lambda: nobody.get_object(Bucket="open", Key="k"))
    refused(lambda: main.get_public_access_block(Bucket="open"), "NoSuchPublicAccessBlockConfiguration", 404)
    rules = main.get_bucket_ownership_controls(Bucket="open")["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "ObjectWriter"}]
    main.create_bucket(Bucket="shut", ObjectOwnership="BucketOwnerEnforced")
    refused(lambda: main.put_bucket_acl(Bucket="shut", ACL="public-read"), "AccessControlListNotSupported")


@pytest.mark.parametrize("by", ["headers", "document"])
@pytest.mark.parametrize(
    "permission, calls",
    [
        ("READ", {"list"}),
        ("WRITE", {"put"}),
        ("READ_ACP", {"get_acl"}),
        ("WRITE_ACP", {"put_acl"}),
        ("FULL_CONTROL", {"list", "put", "get_acl", "put_acl"}),
    ],
)
def test_grants_on_a_bucket(main, alt, third, bucket, permission, calls, by):
    if by == "headers":
        header = "Grant" + permission.title().replace("_", "").replace("Acp", "ACP")
        own = {} if permission == "FULL_CONTROL" else {"GrantFullControl": f"id={ID['main']}"}
        both = f'emailAddress="alt@example.org", id={ID["main"]}' if permission == "FULL_CONTROL" else 'emailAddress="alt@example.org"'
        main.put_bucket_acl(Bucket=bucket, **{header: both}, **own)
    else:
        answer = main.get_bucket_acl(Bucket=bucket)
        given = answer["Grants"] + [{"Grantee": user("alt"), "Permission": permission}]
        main.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": answer["Owner"], "Grants": given})
    assert sorted(grants(main.get_bucket_acl(Bucket=bucket))) == sorted([OWN, (ID["alt"], permission)])
    acl = {"Owner": {"ID": ID["main"]}, "Grants": [{"Grantee": user("alt"), "Permission": permission}]}
    attempts = {
        "list": lambda c: c.list_objects_v2(Bucket=bucket),
        "put": lambda c: c.put_object(Bucket=bucket, Key="k", Body=b""),
        "get_acl": lambda c: c.get_bucket_acl(Bucket=bucket),
        "put_acl": lambda c: c.put_bucket_acl(Bucket=bucket, AccessControlPolicy=acl),
        "versions": lambda c: c.get_bucket_versioning(Bucket=bucket),
        "delete": lambda c: c.delete_bucket(Bucket=bucket),
    }
    for name, call in attempts.items():
        assert may(lambda call=call: call(alt)) == (name in calls), name
        assert not may(lambda call=call: call(third)), name


@pytest.mark.parametrize(
    "permission, calls",
    [
        ("READ", {"get", "head"}),
        ("READ_ACP", {"get_acl"}),
        ("WRITE_ACP", {"put_acl"}),
        ("FULL_CONTROL", {"get", "head", "get_acl", "put_acl"}),
    ],
)
def test_grants_on_an_object(main, alt, third, bucket, permission, calls):
    header = "Grant" + permission.title().replace("_", "").replace("Acp", "ACP")
    main.put_object(Bucket=bucket, Key="k", Body=b"body", **{header: f"id={ID['alt']}"})
    assert grants(main.get_object_acl(Bucket=bucket, Key="k")) == [(ID["alt"], permission)]
    attempts = {
        "get": lambda c: c.get_object(Bucket=bucket, Key="k"),
        "get_acl": lambda c: c.get_object_acl(Bucket=bucket, Key="k"),
        "put_acl": lambda c: c.put_object_acl(
            Bucket=bucket,
            Key="k",
            AccessControlPolicy={"Owner": {"ID": ID["main"]}, "Grants": [{"Grantee": user("alt"), "Permission": permission}]},
        ),
        "tags": lambda c: c.get_object_tagging(Bucket=bucket, Key="k"),
        "delete": lambda c: c.delete_object(Bucket=bucket, Key="k"),
    }
    for name, call in attempts.items():
        assert may(lambda call=call: call(alt)) == (name in calls), name
        assert not may(lambda call=call: call(third)), name
        if name != "delete":
            assert may(lambda call=call: call(main)), name


def test_a_list_that_is_wrong_is_refused_and_changes_nothing(main, alt, bucket):
    main.put_object(Bucket=bucket, Key="k", Body=b"")
    owner = {"ID": ID["main"]}

    def put(grantee, permission="READ", owner=owner):
        document = {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": permission}]}
        main.put_bucket_acl(Bucket=bucket, AccessControlPolicy=document)

    refused(lambda: put({"Type": "CanonicalUser", "ID": "d" * 64}), "InvalidArgument", 400)
    refused(
        lambda: put({"Type": "AmazonCustomerByEmail", "EmailAddress": "x@example.org"}), "UnresolvableGrantByEmailAddress", 400
    )
    refused(lambda: put({"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/Some"}), "InvalidArgument", 400)
    refused(lambda: put(user("alt"), "EXECUTE"), "MalformedACLError", 400)
    refused(lambda: put(user("alt"), owner={"ID": ID["alt"]}), "AccessDenied", 403)
    refused(lambda: main.put_bucket_acl(Bucket=bucket, ACL="open"), "InvalidArgument", 400)
    refused(lambda: main.put_bucket_acl(Bucket=bucket, GrantRead="anna"), "InvalidArgument", 400)
    refused(lambda: main.put_bucket_acl(Bucket=bucket, ACL="private", GrantRead=f"id={ID['alt']}"), "InvalidRequest", 400)
    refused(lambda: main.put_bucket_acl(Bucket=bucket), "MissingSecurityHeader", 400)
    refused(lambda: main.put_object_acl(Bucket=bucket, Key="absent", ACL="private"), "NoSuchKey", 404)
    many = [{"Grantee": user("alt"), "Permission": "READ"}] * 101
    refused(
        lambda: main.put_object_acl(Bucket=bucket, Key="k", AccessControlPolicy={"Owner": owner, "Grants": many}),
        "MalformedACLError",
        400,
    )
    for answer in (main.get_bucket_acl(Bucket=bucket), main.get_object_acl(Bucket=bucket, Key="k")):
        assert grants(answer) == [OWN]
    # By e-mail address, and to a group.
    put({"Type": "AmazonCustomerByEmail", "EmailAddress": "alt@example.org"})
    assert grants(main.get_bucket_acl(Bucket=bucket)) == [(ID["alt"], "READ")]
    put({"Type": "Group", "URI": ALL_USERS})
    assert grants(main.get_bucket_acl(Bucket=bucket)) == [(ALL_USERS, "READ")]


def test_public_acls_are_blocked_and_ignored(main, alt, nobody, bucket):
    main.put_bucket_acl(Bucket=bucket, ACL="public-read")
    main.put_object(Bucket=bucket, Key="k", Body=b"", ACL="public-read")
    main.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**OPEN, "BlockPublicAcls": True})
    for call in (
        lambda: main.put_bucket_acl(Bucket=bucket, ACL="public-read"),
        lambda: main.put_bucket_acl(Bucket=bucket, GrantRead=f"uri={AUTHENTICATED}"),
        lambda: main.put_object_acl(Bucket=bucket, Key="k", ACL="authenticated-read"),
        lambda: main.put_object(Bucket=bucket, Key="n", Body=b"", ACL="public-read-write"),
        lambda: main.copy_object(Bucket=bucket, Key="n", CopySource=f"{bucket}/k", ACL="public-read"),
        lambda: main.create_multipart_upload(Bucket=bucket, Key="n", ACL="public-read"),
    ):
        refused(call, "AccessDenied", 403)
    main.put_object(Bucket=bucket, Key="n", Body=b"", GrantRead=f"id={ID['alt']}")
    # What is there stays, until it is ignored.
    assert may(lambda: nobody.get_object(Bucket=bucket, Key="k"))
    main.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**OPEN, "IgnorePublicAcls": True})
    for client in (alt, nobody):
        assert not may(lambda c=client: c.get_object(Bucket=bucket, Key="k"))
        assert not may(lambda c=client: c.list_objects_v2(Bucket=bucket))
    assert may(lambda: alt.get_object(Bucket=bucket, Key="n"))


def test_who_writes_owns_where_the_bucket_says_so(main, alt, third, make_bucket):
    def given_to_alt(ownership):
        bucket = make_bucket(ownership)
        main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("alt"), action="s3:PutObject")))
        return bucket

    def owner(bucket, key):
        listed = main.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
        (told,) = [entry["Owner"]["ID"] for entry in listed if entry["Key"] == key]
        return told

    # ObjectWriter: the bucket's owner gets at what alt wrote only as far as alt grants it, and can remove it.
    bucket = given_to_alt("ObjectWriter")
    alt.put_object(Bucket=bucket, Key="k", Body=b"body")
    assert owner(bucket, "k") == ID["alt"]
    answer = alt.get_object_acl(Bucket=bucket, Key="k")
    assert answer["Owner"]["ID"] == ID["alt"] and grants(answer) == [(ID["alt"], "FULL_CONTROL")]
    for call in (
        lambda: main.get_object(Bucket=bucket, Key="k"),
        lambda: main.get_object_acl(Bucket=bucket, Key="k"),
        lambda: main.put_object_acl(Bucket=bucket, Key="k", ACL="private"),
    ):
        refused(call, "AccessDenied", 403)
    assert may(lambda: alt.get_object(Bucket=bucket, Key="k"))
    alt.put_object_acl(Bucket=bucket, Key="k", ACL="bucket-owner-read")
    assert grants(alt.get_object_acl(Bucket=bucket, Key="k")) == [(ID["alt"], "FULL_CONTROL"), (ID["main"], "READ")]
    assert may(lambda: main.get_object(Bucket=bucket, Key="k"))
    assert not may(lambda: main.get_object_acl(Bucket=bucket, Key="k"))
    # A policy of the bucket's gives nobody what its owner does not have.
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, principal=arn("third"))))
    assert not may(lambda: third.get_object(Bucket=bucket, Key="k"))
    main.delete_object(Bucket=bucket, Key="k")
    # BucketOwnerPreferred: handed over with the canned ACL only.
    bucket = given_to_alt("BucketOwnerPreferred")
    alt.put_object(Bucket=bucket, Key="mine", Body=b"body")
    alt.put_object(Bucket=bucket, Key="yours", Body=b"body", ACL="bucket-owner-full-control")
    assert (owner(bucket, "mine"), owner(bucket, "yours")) == (ID["alt"], ID["main"])
    assert not may(lambda: main.get_object(Bucket=bucket, Key="mine"))
    assert grants(main.get_object_acl(Bucket=bucket, Key="yours")) == [OWN]
    assert not may(lambda: alt.get_object(Bucket=bucket, Key="yours"))
    # So it is for uploads in parts, whose ACL is given at their start.
    upload = alt.create_multipart_upload(Bucket=bucket, Key="parts", ACL="bucket-owner-full-control")["UploadId"]
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    etag = alt.upload_part(**part, PartNumber=1, Body=b"part")["ETag"]
    alt.complete_multipart_upload(**part, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert owner(bucket, "parts") == ID["main"]
    # BucketOwnerEnforced: everything is the bucket owner's, what alt kept for itself before, too.
    main.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    assert owner(bucket, "mine") == ID["main"]
    assert may(lambda: main.get_object(Bucket=bucket, Key="mine"))
    assert not may(lambda: alt.get_object(Bucket=bucket, Key="mine"))


def test_a_copy_has_an_acl_of_its_own(main, alt, bucket):
    main.put_object(Bucket=bucket, Key="k", Body=b"", ACL="public-read")
    main.copy_object(Bucket=bucket, Key="plain", CopySource=f"{bucket}/k")
    assert grants(main.get_object_acl(Bucket=bucket, Key="plain")) == [OWN]
    main.copy_object(Bucket=bucket, Key="open", CopySource=f"{bucket}/k", ACL="authenticated-read")
    assert grants(main.get_object_acl(Bucket=bucket, Key="open")) == [(AUTHENTICATED, "READ"), OWN]


def test_versions_have_acls_of_their_own(main, alt, bucket):
    main.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = main.put_object(Bucket=bucket, Key="k", Body=b"1", ACL="public-read")["VersionId"]
    second = main.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
    assert may(lambda: alt.get_object(Bucket=bucket, Key="k", VersionId=first))
    assert not may(lambda: alt.get_object(Bucket=bucket, Key="k"))
    main.put_object_acl(Bucket=bucket, Key="k", VersionId=first, ACL="private")
    assert not may(lambda: alt.get_object(Bucket=bucket, Key="k", VersionId=first))
    main.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    assert grants(main.get_object_acl(Bucket=bucket, Key="k", VersionId=second)) == [(ALL_USERS, "READ"), OWN]
    assert may(lambda: alt.get_object(Bucket=bucket, Key="k"))


def test_what_nobody_signed_for_is_the_bucket_owners(main, nobody, bucket):
    main.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    nobody.put_object(Bucket=bucket, Key="open", Body=b"body", ACL="public-read")
    assert may(lambda: nobody.get_object(Bucket=bucket, Key="open"))
    nobody.put_object(Bucket=bucket, Key="k", Body=b"body")
    assert main.get_object(Bucket=bucket, Key="k")["Body"].read() == b"body"
    assert grants(main.get_object_acl(Bucket=bucket, Key="k")) == [OWN]
    assert not may(lambda: nobody.get_object(Bucket=bucket, Key="k"))


def test_a_policy_may_deny_what_acls_grant_and_which_acls_are_set(main, alt, bucket):
    main.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    main.put_object(Bucket=bucket, Key="k", Body=b"", ACL="public-read")
    deny = statement(bucket, effect="Deny", action="s3:GetObject", principal=arn("alt"))
    public = statement(bucket, effect="Deny", action="s3:PutObject", Condition={"StringLike": {"s3:x-amz-acl": "public*"}})
    main.put_bucket_policy(Bucket=bucket, Policy=policy(deny, public))
    assert not may(lambda: alt.get_object(Bucket=bucket, Key="k"))
    alt.put_object(Bucket=bucket, Key="n", Body=b"")
    for client in (main, alt):
        refused(lambda c=client: c.put_object(Bucket=bucket, Key="n", Body=b"", ACL="public-read"))
    # Giving an ACL with a write is s3:PutObjectAcl, too.
    main.put_bucket_policy(Bucket=bucket, Policy=policy(statement(bucket, effect="Deny", action="s3:PutObjectAcl")))
    alt.put_object(Bucket=bucket, Key="n", Body=b"")
    refused(lambda: alt.put_object(Bucket=bucket, Key="n", Body=b"", ACL="bucket-owner-read"))


def test_a_bucket_that_is_created_again_has_the_acl_that_was_asked_for(main, alt, bucket):
    main.put_object(Bucket=bucket, Key="k", Body=b"x")
    again = {"Bucket": bucket, "ObjectOwnership": "ObjectWriter"}
    main.put_bucket_acl(Bucket=bucket, GrantRead=f"id={ID['alt']}")
    main.create_bucket(**again)
    assert grants(main.get_bucket_acl(Bucket=bucket)) == [OWN]
    main.create_bucket(**again, GrantRead=f"id={ID['alt']}", GrantFullControl=f"id={ID['main']}")
    assert sorted(grants(main.get_bucket_acl(Bucket=bucket))) == sorted([OWN, (ID["alt"], "READ")])
    assert len(alt.list_objects_v2(Bucket=bucket)["Contents"]) == 1
    denied = policy(statement(bucket, "Deny", action="s3:PutBucketAcl", resource=""))
    main.put_bucket_policy(Bucket=bucket, Policy=denied)
    refused(lambda: main.create_bucket(**again), status=403)
    main.create_bucket(**again, GrantRead=f"id={ID['alt']}", GrantFullControl=f"id={ID['main']}")
    refused(lambda: alt.create_bucket(**again), "BucketAlreadyExists", 409)
