"""The program as its operator meets it: one process or three, configuration errors, locks, restarts."""

import re
import stat

import pytest
from botocore.exceptions import ClientError

import harness
from harness import MIB, random_bytes


def ended(server) -> str:
    """Starts a server that has to refuse, and returns what it said."""
    with pytest.raises(harness.ServerEnded):
        server.start()
    return server.log_tail()


def test_the_first_start_makes_what_it_needs_and_says_how_to_reach_it(make_server):
    server = make_server()
    for name in ("root.key", "identity.json", "metadata", "keys", *(f"disks/d{i}" for i in range(6))):
        assert (server.data / name).exists(), name
    assert stat.S_IMODE((server.data / "root.key").stat().st_mode) == 0o600
    out = server.announcement()
    assert re.search(r"^endpoint = http://127\.0\.0\.1:\d+$", out, re.M)
    section = out[out.index("[valv]") :]
    for line in ("type = s3", "env_auth = true", f"endpoint = {server.endpoint}"):
        assert line in section
    assert harness.SECRET_KEY not in out, "what was given is not repeated"
    assert f"access_key_id = {harness.ACCESS_KEY}" in out


def test_the_printed_rclone_section_works_with_a_given_key_in_the_environment(make_server, folder):
    server = make_server()
    text = server.announcement()
    config = folder / "rclone.conf"
    config.write_text(text[text.index("[valv]") :])
    key = re.search(r"AWS_ACCESS_KEY_ID=(\S+)", text)[1]
    env = {"RCLONE_CONFIG": str(config), "HOME": str(folder), "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": harness.SECRET_KEY}
    harness.run("rclone", "mkdir", "valv:pasted", env=env)
    assert [bucket["Name"] for bucket in server.s3().list_buckets()["Buckets"]] == ["pasted"]


def test_the_printed_rclone_section_works_as_it_stands_with_a_generated_key(make_server, folder):
    server = make_server(env={"VALV_ACCESS_KEY_ID": None, "VALV_SECRET_ACCESS_KEY": None})
    text = server.announcement()
    config = folder / "rclone.conf"
    config.write_text(text[text.index("[valv]") :])
    (folder / "in").mkdir()
    (folder / "in" / "file").write_bytes(random_bytes(100_000))
    env = {"RCLONE_CONFIG": str(config), "HOME": str(folder)}
    harness.run("rclone", "mkdir", "valv:pasted", env=env)
    harness.run("rclone", "copy", folder / "in", "valv:pasted", env=env)
    harness.run("rclone", "check", folder / "in", "valv:pasted", "--download", env=env)
    secret = re.search(r"^secret_access_key = (\S+)$", text, re.M)[1]
    assert secret not in server.log()
    server.restart()
    assert secret not in server.announcement(), "a generated secret is shown once"
    harness.run("rclone", "mkdir", "valv:again", "--s3-endpoint", server.endpoint, env=env)


def test_a_second_server_on_the_same_folder_is_refused(server, folder):
    second = harness.Server(server.folder, name="second")
    said = ended(second)
    assert "in use by another Valv server" in said
    server.s3().create_bucket(Bucket="still-there")
    server.restart(kill=True)
    server.s3().head_bucket(Bucket="still-there")


@pytest.mark.parametrize(
    "text, place",
    [
        ("data = 'x'\nrols = []\n", "bad.toml:2: rols"),
        ("[gateway]\n\nregion = 7\n", "bad.toml:3: region"),
        ("memory_budget = 'much'\n", "bad.toml:1: memory_budget"),
        ("[metadata]\nlisten = '0.0.0.0:9101'\n", "bad.toml:2: metadata.listen"),
        ("[storage\n", "bad.toml:1"),
    ],
)
def test_configuration_errors_name_file_key_and_line(make_server, text, place):
    server = make_server(name="bad", config=text, start=False)
    assert place in ended(server)
    assert server.process.returncode != 0


def test_an_identity_that_is_missing_is_not_made_anew_over_data(server):
    assert server.terminate() == 0
    (server.data / "identity.json").rename(server.folder / "identity.json")
    assert "identity.json" in ended(server)
    (server.folder / "identity.json").rename(server.data / "identity.json")
    server.start()


def test_a_missing_root_key_is_not_made_anew_over_data(server):
    server.s3().create_bucket(Bucket="bkt")
    assert server.terminate() == 0
    (server.data / "root.key").rename(server.folder / "root.key")
    ended(server)
    assert not (server.data / "root.key").exists()
    (server.folder / "root.key").rename(server.data / "root.key")
    server.start()
    server.s3().head_bucket(Bucket="bkt")


def test_keys_are_restored_from_a_backup(server):
    s3 = server.s3()
    s3.create_bucket(Bucket="bkt")
    s3.put_object(Bucket="bkt", Key="k", Body=b"precious" * 10_000)
    (server.folder / "pass").write_text("correct horse\n")
    words = ["--passphrase-file", server.folder / "pass"]
    server.valv("key", "backup", "--out", server.folder / "backup", *words)
    assert server.terminate() == 0
    (server.data / "root.key").unlink()
    harness.remove_tree(server.data / "keys")
    server.valv("key", "restore", "--from", server.folder / "backup", *words)
    server.start()
    assert server.s3().get_object(Bucket="bkt", Key="k")["Body"].read() == b"precious" * 10_000


def test_http_keeps_connections_and_answers_head_without_body(server):
    import rawhttp

    server.s3().create_bucket(Bucket="bkt")
    with rawhttp.Connection(server) as connection:
        for _ in range(3):
            headers = rawhttp.Signer().headers("HEAD", "/bkt", [], {"host": connection.host}, rawhttp.EMPTY_SHA256)
            connection.send_head("HEAD", "/bkt", headers)
            assert connection.read_response(head_only=True).status == 200


def test_tls(make_server, folder):
    harness.run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
    )  # fmt: skip
    config = f'[gateway]\n[gateway.tls]\ncertificate = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n'
    server = make_server(config=config)
    assert server.endpoint.startswith("https://")
    import boto3

    s3 = boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=harness.ACCESS_KEY,
        aws_secret_access_key=harness.SECRET_KEY, region_name=harness.REGION, verify=str(folder / "cert.pem"),
    )  # fmt: skip
    s3.create_bucket(Bucket="tls")
    s3.put_object(Bucket="tls", Key="k", Body=random_bytes(MIB))
    assert s3.get_object(Bucket="tls", Key="k")["Body"].read() == random_bytes(MIB)


def test_three_processes_do_what_one_does(make_server):
    def sample(role, **changes):
        text = (harness.REPO / "deploy" / "three-processes" / f"{role}.toml").read_text()
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        return make_server(name=role, start=False, config=text)

    any_port = "127.0.0.1:0"
    storage = sample("storage", listen=("127.0.0.1:9102", any_port)).start(ready="storage")
    to_storage = ("127.0.0.1:9102", storage.announced["storage"])
    metadata = sample("metadata", listen=("127.0.0.1:9101", any_port), storage=to_storage).start(ready="metadata")
    to_metadata = ("127.0.0.1:9101", metadata.announced["metadata"])
    gateway = sample("gateway", metadata=to_metadata, storage=to_storage).start()
    s3 = gateway.s3()
    s3.create_bucket(Bucket="three")
    bodies = {str(size): random_bytes(size) for size in (0, 100, 40_000, 500_000, 20 * MIB)}
    for key, body in bodies.items():
        s3.put_object(Bucket="three", Key=key, Body=body)
    upload = s3.create_multipart_upload(Bucket="three", Key="parts")["UploadId"]
    parts = [random_bytes(5 * MIB, 1), random_bytes(77, 2)]
    done = [
        {
            "PartNumber": n,
            "ETag": s3.upload_part(Bucket="three", Key="parts", UploadId=upload, PartNumber=n, Body=part)["ETag"],
        }
        for n, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(Bucket="three", Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    bodies["parts"] = b"".join(parts)
    gateway.restart(kill=True)
    s3 = gateway.s3()
    for key, body in bodies.items():
        assert s3.get_object(Bucket="three", Key=key)["Body"].read() == body, key
    assert s3.get_object(Bucket="three", Key="500000", Range="bytes=100-200")["Body"].read() == bodies["500000"][100:201]
    for index in (1, 3):
        storage.move_disk_away(index)
    storage.wait_disks("absent", [1, 3])
    for key, body in bodies.items():
        assert s3.get_object(Bucket="three", Key=key)["Body"].read() == body, key

    def refused():
        try:
            s3.put_object(Bucket="three", Key="new", Body=random_bytes(500_000))
        except ClientError as error:
            assert harness.error_status(error) == 503, error
            return True
        return False  # a folder that was moved away takes writes until the storage process has looked at it again

    harness.wait_until(refused, "writes to be refused with two disks away")
    for key, body in bodies.items():
        assert s3.get_object(Bucket="three", Key=key)["Body"].read() == body, key
    assert gateway.terminate() == 0
    assert metadata.terminate() == 0
    assert storage.terminate() == 0
