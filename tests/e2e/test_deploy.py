"""The files in deploy/ work as they stand, but for the places where data and ports are."""

import re

import harness
from harness import random_bytes

DEPLOY = harness.REPO / "deploy"


def adapted(name: str, **places: str) -> str:
    """The file with its data folder left to the command line and its addresses on ports that the system picks."""
    text = (DEPLOY / name).read_text()
    text = re.sub(r"^data = .*\n", "", text, flags=re.M)
    text = re.sub(r'^listen = ".*"', 'listen = "127.0.0.1:0"', text, flags=re.M)
    for port, url in places.items():
        text = text.replace(f'"127.0.0.1:{port.removeprefix("port_")}"', f'"{url}"')
    return text


def uncommented(text: str) -> str:
    """Keys and tables that the file shows as comments, switched on."""
    return re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.M)


def store_and_read(server):
    s3 = server.s3()
    s3.create_bucket(Bucket="deployed")
    for size in (10, 100_000, 9_000_000):
        s3.put_object(Bucket="deployed", Key=str(size), Body=random_bytes(size))
        assert s3.get_object(Bucket="deployed", Key=str(size))["Body"].read() == random_bytes(size)


def test_the_commented_configuration_starts_a_server(make_server):
    store_and_read(make_server(config=adapted("valv.toml")))


def test_what_is_commented_out_is_right_too(make_server, folder):
    text = uncommented(adapted("valv.toml"))
    text = text.replace("/srv/", f"{folder}/srv/").replace('"127.0.0.1:9100"', '"127.0.0.1:0"')
    text = re.sub(r"^\[gateway\.tls\]\ncertificate.*\nkey.*\n", "", text, flags=re.M)
    # Files of a site's own; without them the admin service stays on this machine.
    text = re.sub(r"^(tls_cert|tls_key|client_ca|operators) = .*\n", "", text, flags=re.M).replace("0.0.0.0:9443", "127.0.0.1:0")
    server = make_server(config=text)
    store_and_read(server)
    assert (folder / "srv" / "d5" / "extents").is_dir()
    import boto3
    import botocore.config

    scanner = boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id="SCANNER7ACCESSKEY000",
        aws_secret_access_key="at least eight characters", region_name=harness.REGION,
        config=botocore.config.Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
    assert scanner.list_buckets()["Buckets"] == []
    scanner.create_bucket(Bucket="deployed")  # a namespace of its own: the name is free there
    assert "at least eight characters" not in server.log()


def test_three_processes_start_from_their_files(make_server):
    storage = make_server(name="storage", config=adapted("three-processes/storage.toml"), start=False).start("storage")
    places = {"port_9102": storage.announced["storage"]}
    metadata = make_server(name="metadata", config=adapted("three-processes/metadata.toml", **places), start=False)
    metadata.start("metadata")
    places["port_9101"] = metadata.announced["metadata"]
    gateway = make_server(name="gateway", config=adapted("three-processes/gateway.toml", **places))
    store_and_read(gateway)
    for server in (gateway, metadata, storage):
        assert server.terminate() == 0
