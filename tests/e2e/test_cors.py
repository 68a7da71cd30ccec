"""Cross-origin resource sharing, from AWS's "Using cross-origin resource sharing (CORS)" and the CORSRule reference:
preflights by plain HTTP, as browsers send them, and the headers of answers and of refusals."""

import pytest
import urllib3
from botocore.exceptions import ClientError

import harness
from rawhttp import Connection, Signer, request

PAGE = "https://www.example.org"
FORBIDDEN = "AccessForbidden"
VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"
http = urllib3.PoolManager(retries=False)


def configure(s3, bucket, *rules):
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": list(rules)})


def rule(origins=(PAGE,), methods=("GET",), **more):
    return {"AllowedOrigins": list(origins), "AllowedMethods": list(methods), **more}


def preflight(server, bucket, origin: str | None = PAGE, method: str | None = "GET", headers: str | None = None, key="/key"):
    asked = {}
    for name, value in (("Origin", origin), ("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", headers)):
        if value is not None:
            asked[name] = value
    return http.request("OPTIONS", f"{server.endpoint}/{bucket}{key}", headers=asked)


def cors_headers(response) -> dict:
    found = {name.lower(): value for name, value in dict(response.headers).items()}
    return {name: value for name, value in found.items() if name.startswith("access-control-") or name == "vary"}


def test_a_preflight_is_answered_from_the_rule_that_fits(shared, s3, bucket):
    configure(
        s3,
        bucket,
        rule(methods=["PUT"], AllowedHeaders=["x-amz-*"], MaxAgeSeconds=60),
        rule(methods=["GET", "PUT"], AllowedHeaders=["*"], ExposeHeaders=["ETag", "x-amz-request-id"], MaxAgeSeconds=3000),
    )
    answer = preflight(shared, bucket, method="PUT", headers="X-Amz-Date, authorization")
    assert answer.status == 200 and answer.data == b""
    assert cors_headers(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, PUT",
        "access-control-allow-headers": "x-amz-date, authorization",
        "access-control-expose-headers": "ETag, x-amz-request-id",
        "access-control-max-age": "3000",
        "access-control-allow-credentials": "true",
        "vary": VARY,
    }
    # The first rule that fits, not the last.
    first = preflight(shared, bucket, method="PUT", headers="x-amz-date")
    assert first.headers["Access-Control-Max-Age"] == "60" and "Access-Control-Expose-Headers" not in first.headers
    # Of the bucket itself as of a key, whether or not that exists.
    assert preflight(shared, bucket, key="").status == 200


ORIGINS = [
    ("*", "https://anywhere.example", "*"),
    ("*", "null", "*"),
    (PAGE, PAGE, PAGE),
    (PAGE, PAGE.upper(), None),
    (PAGE, "http://www.example.org", None),
    (PAGE, PAGE + ":8443", None),
    (PAGE, "https://example.org", None),
    ("https://*.example.org", "https://a.b.example.org", "https://a.b.example.org"),
    ("https://*.example.org", "https://example.org", None),
    ("https://*.example.org", "https://x.example.org.evil.example", None),
    ("https://*", "https://anything", "https://anything"),
    ("https://*", "http://anything", None),
    ("http://localhost:*", "http://localhost:3000", "http://localhost:3000"),
]


def test_origins_are_matched_with_one_wildcard(shared, s3, bucket):
    for allowed, origin, expected in ORIGINS:
        configure(s3, bucket, rule(origins=[allowed]))
        answer = preflight(shared, bucket, origin=origin)
        found = (answer.status, answer.headers.get("Access-Control-Allow-Origin"))
        assert found == ((200, expected) if expected else (403, None)), (allowed, origin)
        # Credentials may not be combined with any origin at all (Fetch standard).
        assert ("Access-Control-Allow-Credentials" in answer.headers) == (expected not in (None, "*"))


def test_methods_are_matched_exactly(shared, s3, bucket):
    configure(s3, bucket, rule(methods=["GET", "DELETE"]))
    for method, status in (("GET", 200), ("DELETE", 200), ("PUT", 403), ("POST", 403), ("HEAD", 403), ("get", 403), ("PATCH", 403)):
        assert preflight(shared, bucket, method=method).status == status, method


def test_headers_are_matched_without_case_and_all_of_them(shared, s3, bucket):
    for allowed, asked, status in (
        ([], None, 200),
        ([], "x-amz-date", 403),
        (["*"], "x-amz-date,Content-Type , x-other", 200),
        (["Content-Type"], "content-type", 200),
        (["content-type"], "Content-Type, x-amz-date", 403),
        (["x-amz-*"], "X-Amz-Meta-A,x-amz-date", 200),
        (["x-amz-*"], "x-amzn-date", 403),
        (["*-date", "x-amz-meta-*"], "x-amz-date, x-amz-meta-b", 200),
        (["x-amz-*"], "", 200),
    ):
        configure(s3, bucket, rule(AllowedHeaders=allowed) if allowed else rule())
        assert preflight(shared, bucket, headers=asked).status == status, (allowed, asked)


def test_preflights_that_are_refused(shared, s3, bucket):
    assert (preflight(shared, bucket).status, preflight(shared, "no-such-bucket").status) == (403, 403)
    configure(s3, bucket, rule())
    missing = preflight(shared, bucket, origin=None)
    assert missing.status == 400 and b"Insufficient information. Origin request header needed." in missing.data
    missing = preflight(shared, bucket, method=None)
    assert missing.status == 400 and b"Invalid Access-Control-Request-Method: null" in missing.data
    refused = preflight(shared, bucket, origin="https://elsewhere.example")
    assert refused.status == 403 and FORBIDDEN.encode() in refused.data and cors_headers(refused) == {}
    assert b"<Method>GET</Method>" in refused.data and b"<ResourceType>OBJECT</ResourceType>" in refused.data
    assert b"<ResourceType>BUCKET</ResourceType>" in preflight(shared, bucket, origin="https://x.example", key="").data
    s3.delete_bucket_cors(Bucket=bucket)
    assert preflight(shared, bucket).status == 403


def test_answers_to_a_page_of_an_allowed_origin_carry_the_headers(shared, s3, bucket):
    configure(s3, bucket, rule(methods=["GET", "PUT", "HEAD"], ExposeHeaders=["ETag"], MaxAgeSeconds=5))
    for method, body in (("PUT", b"x"), ("GET", b""), ("HEAD", b"")):
        response = request(shared, method, f"/{bucket}/k", headers={"origin": PAGE}, body=body)
        assert response.status == 200
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-allow-credentials"] == "true"
        assert response.headers["access-control-allow-methods"] == "GET, PUT, HEAD"
        assert response.headers["access-control-expose-headers"] == "ETag"
        assert response.headers["vary"] == VARY
    listed = request(shared, "GET", f"/{bucket}", query=[("list-type", "2")], headers={"origin": PAGE})
    assert listed.headers["access-control-allow-origin"] == PAGE
    for method, origin in (("GET", "https://elsewhere.example"), ("GET", None), ("DELETE", PAGE)):
        response = request(shared, method, f"/{bucket}/k", headers={"origin": origin} if origin else {})
        assert response.status in (200, 204) and "access-control-allow-origin" not in response.headers


REFUSALS = {
    "a key that does not exist": (dict(path="/none"), 404, "NoSuchKey"),
    "a wrong signature": (dict(signer=lambda: Signer(secret_key="wrong")), 403, "SignatureDoesNotMatch"),
    "an unknown access key": (dict(signer=lambda: Signer(access_key="NOSUCHKEY00000000")), 403, "InvalidAccessKeyId"),
    "a condition that fails": (dict(headers={"if-match": '"other"'}), 412, "PreconditionFailed"),
    "a range beyond the end": (dict(headers={"range": "bytes=100-"}), 416, "InvalidRange"),
    "a version that is none": (dict(query=[("versionId", "x")]), 400, "InvalidArgument"),
}


@pytest.mark.parametrize("case", REFUSALS, ids=lambda name: name.replace(" ", "-"))
def test_refusals_carry_the_headers_too(shared, s3, bucket, case):
    options, status, code = REFUSALS[case]
    options = dict(options)
    configure(s3, bucket, rule(ExposeHeaders=["x-amz-request-id"]))
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    path, extra, signer = options.pop("path", "/k"), options.pop("headers", {}), options.pop("signer", Signer)()
    for origin in (PAGE, "https://elsewhere.example"):
        headers = {"origin": origin, **extra}
        response = request(shared, "GET", f"/{bucket}{path}", headers=headers, signer=signer, **options)
        assert (response.status, response.code) == (status, code), response
        is_allowed = origin == PAGE
        assert (response.headers.get("access-control-allow-origin") == PAGE) == is_allowed
        assert ("access-control-expose-headers" in response.headers) == is_allowed


def test_an_unsigned_request_is_refused_with_the_headers(shared, s3, bucket):
    configure(s3, bucket, rule())
    with Connection(shared) as connection:
        connection.send_head("GET", f"/{bucket}/k", {"host": connection.host, "origin": PAGE})
        response = connection.read_response()
    assert (response.status, response.code) == (403, "AccessDenied")
    assert response.headers["access-control-allow-origin"] == PAGE


def test_a_configuration_comes_back_as_it_was_put(s3, bucket):
    rules = [
        rule(origins=["*"], methods=["GET", "HEAD"], ID="read", AllowedHeaders=["*"], ExposeHeaders=["ETag"], MaxAgeSeconds=1),
        rule(origins=[PAGE, "http://*.example.org"], methods=["PUT", "POST", "DELETE"]),
    ]
    configure(s3, bucket, *rules)
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    s3.delete_bucket_cors(Bucket=bucket)
    with pytest.raises(ClientError) as missing:
        s3.get_bucket_cors(Bucket=bucket)
    assert harness.error_code(missing.value) == "NoSuchCORSConfiguration"


@pytest.mark.parametrize(
    "wrong, code",
    [
        (rule(methods=["PATCH"]), "InvalidRequest"),
        (rule(methods=["get"]), "InvalidRequest"),
        (rule(origins=["https://*.*.org"]), "InvalidRequest"),
        (rule(AllowedHeaders=["x-*-*"]), "InvalidRequest"),
        (rule(ExposeHeaders=["x-amz-*"]), "InvalidRequest"),
        (rule(origins=[]), "MalformedXML"),
        (rule(methods=[]), "MalformedXML"),
    ],
)
def test_a_rule_that_s3_does_not_take_is_refused(s3, bucket, wrong, code):
    with pytest.raises(ClientError) as refused:
        configure(s3, bucket, rule(), wrong)
    assert harness.error_code(refused.value) == code
