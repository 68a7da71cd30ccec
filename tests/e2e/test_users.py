"""Users, their access keys and projects, and the namespaces in which names are looked up."""

import http.client

import boto3
import botocore.config

from harness import ACCESS_KEY, REGION, SECRET_KEY


def client(server, access_key: str, secret: str, **options):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        region_name=REGION,
        config=botocore.config.Config(
            retries={"total_max_attempts": 1, "mode": "standard"}, s3={"addressing_style": "path"}, **options
        ),
    )


def preflight(server, bucket: str, host: str | None = None) -> int:
    """The status of a browser's unsigned question about `bucket`."""
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    headers = {"Origin": "https://viewer.example.org", "Access-Control-Request-Method": "GET"}
    if host is not None:
        headers["Host"] = host
    connection.request("OPTIONS", f"/{bucket}/key", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


CORS = {"CORSRules": [{"AllowedOrigins": ["https://viewer.example.org"], "AllowedMethods": ["GET"]}]}

HOSTS = """
[gateway]
anonymous_namespace = "elsewhere"
[[gateway.hosts]]
name = "s3.example.org"
namespace = "default"
"""


def test_an_unsigned_request_finds_buckets_in_the_namespace_of_its_host(make_server):
    server = make_server(config=HOSTS)
    s3 = client(server, ACCESS_KEY, SECRET_KEY)
    s3.create_bucket(Bucket="scans")
    s3.put_bucket_cors(Bucket="scans", CORSConfiguration=CORS)
    assert preflight(server, "scans", host="s3.example.org") == 200
    assert preflight(server, "scans", host="S3.Example.ORG:9000") == 200
    assert preflight(server, "other", host="s3.example.org") == 403

    # The other namespace does not exist yet, then it does, with a bucket of the same name that has no rules.
    assert preflight(server, "scans") == 403
    secret = "a-secret-of-some-length"
    server.valv(
        "user", "add", "--name", "b", "--project", "b", "--namespace", "elsewhere", "--access-key-id", "KEY-OF-B",
        env={"VALV_SECRET_ACCESS_KEY": secret},
    )  # fmt: skip
    s3_b = client(server, "KEY-OF-B", secret)
    s3_b.create_bucket(Bucket="scans")
    assert preflight(server, "scans") == 403
    s3_b.put_bucket_cors(Bucket="scans", CORSConfiguration=CORS)
    assert preflight(server, "scans") == 200


def test_without_a_file_unsigned_requests_find_buckets_of_the_default_namespace(shared, s3, bucket):
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=CORS)
    assert preflight(shared, bucket) == 200
