"""Three users, each with a project of their own, whose projects share a namespace: so that they can name each other's buckets."""

import json

import boto3
import botocore.config
from botocore import UNSIGNED

from harness import REGION

NAMES = ("main", "alt", "third")
CONFIG = '[gateway]\nanonymous_namespace = "together"\n' + "".join(
    f"""
[[users]]
name = "{name}"
display_name = "{name.title()}"
email = "{name}@example.org"
canonical_id = "{digit * 64}"
project = "{name}-study"
namespace = "together"
access_key_id = "KEY-OF-{name.upper()}"
secret_access_key = "the-secret-of-{name}-0123456789"
"""
    for name, digit in zip(NAMES, "abc")
)
# What S3 lets its own documents decide among accounts, nobody decides here unless the controller says so: these tests do.
CONFIG += "".join(
    f"""
[[openings]]
project = "{name}-study"
policies_decide_for = ["main", "alt", "third", "public"]
"""
    for name in NAMES
)
ID = {name: digit * 64 for name, digit in zip(NAMES, "abc")}
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
OPEN = {
    "BlockPublicAcls": False,
    "IgnorePublicAcls": False,
    "BlockPublicPolicy": False,
    "RestrictPublicBuckets": False,
}


def client(server, name: str | None):
    """A client of a user; of nobody if there is no name."""
    config = botocore.config.Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "path"},
        signature_version="s3v4" if name else UNSIGNED,
    )
    keys = (f"KEY-OF-{name.upper()}", f"the-secret-of-{name}-0123456789") if name else (None, None)
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        region_name=REGION,
        config=config,
    )


def statement(bucket: str, effect="Allow", principal="*", action="s3:GetObject", resource="/*", **fields) -> dict:
    """One statement. Resources are given as what follows the bucket's name; `NotAction` and the like as fields."""
    resources = [f"arn:aws:s3:::{bucket}{one}" for one in ([resource] if isinstance(resource, str) else resource)]
    whole = {"Effect": effect, "Principal": principal, "Action": action, "Resource": resources, **fields}
    for name in ("Principal", "Action", "Resource"):
        if f"Not{name}" in whole:
            del whole[name]
    return whole


def policy(*statements) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def arn(name: str) -> dict:
    return {"AWS": f"arn:aws:iam::{name}-study:user/{name}"}
