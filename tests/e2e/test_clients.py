"""The programs that people use: rclone, aws, s5cmd, s3cmd, restic, boto3 of two generations; DICOM files as input."""

import os
import pathlib
import re
import shutil
import subprocess
import textwrap

import pytest

import harness
from harness import MIB, local_tree, random_bytes, run


def need(program: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is missing: tools/setup.sh test installs it"
    return found


@pytest.fixture(scope="module")
def dicom(module_folder):
    """The DICOM files that pydicom ships in its wheel, in a tree with awkward names."""
    import pydicom.data

    source = pathlib.Path(pydicom.data.DATA_ROOT)
    target = module_folder / "dicom"
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix in (".dcm", ".gz", ".txt", ""))
    assert len(files) > 60
    for index, path in enumerate(files):
        folder = target / f"patient {index % 7:02}" / "sérieß"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name)
    (target / "empty").write_bytes(b"")
    return target


@pytest.fixture(scope="module")
def dicom_few(dicom):
    """One patient of it, for programs that are slow by themselves."""
    return dicom / "patient 03"


def rclone(server, folder, *words, **options):
    return run(need("rclone"), *words, "--retries", "1", env=server.client_env(folder), **options)


def test_rclone_copies_dicom_files_in_and_out(shared, folder, dicom):
    rclone(shared, folder, "mkdir", "valv:rclone-dicom")
    rclone(shared, folder, "copy", dicom, "valv:rclone-dicom/study", "--transfers", "8")
    rclone(shared, folder, "check", dicom, "valv:rclone-dicom/study", "--download")
    rclone(shared, folder, "check", dicom, "valv:rclone-dicom/study")
    rclone(shared, folder, "copy", "valv:rclone-dicom/study", folder / "back")
    assert local_tree(folder / "back") == local_tree(dicom)
    again = rclone(shared, folder, "copy", dicom, "valv:rclone-dicom/study", "-v").stderr
    assert "There was nothing to transfer" in again


def test_rclone_syncs_changes_and_removals(shared, folder, dicom):
    work = folder / "work"
    shutil.copytree(dicom, work)
    rclone(shared, folder, "mkdir", "valv:rclone-sync")
    rclone(shared, folder, "sync", work, "valv:rclone-sync")
    victims = sorted(path for path in work.rglob("*.dcm"))
    victims[0].unlink()
    victims[1].write_bytes(b"changed")
    (work / "new file").write_bytes(random_bytes(100_000))
    rclone(shared, folder, "sync", work, "valv:rclone-sync")
    rclone(shared, folder, "check", work, "valv:rclone-sync", "--download")
    rclone(shared, folder, "move", "valv:rclone-sync/new file", "valv:rclone-sync/moved")
    rclone(shared, folder, "purge", "valv:rclone-sync")


def test_rclone_moves_300_mib_as_multipart(shared, folder):
    source = folder / "in"
    source.mkdir()
    (source / "large").write_bytes(random_bytes(MIB, 9) * 300)
    rclone(shared, folder, "mkdir", "valv:rclone-large")
    flags = ["--s3-upload-cutoff", "50M", "--s3-chunk-size", "16M", "--s3-upload-concurrency", "4"]
    rclone(shared, folder, "copy", source, "valv:rclone-large", *flags)
    assert re.fullmatch(r'"[0-9a-f]{32}-19"', shared.s3().head_object(Bucket="rclone-large", Key="large")["ETag"])
    rclone(shared, folder, "check", source, "valv:rclone-large", "--download")
    rclone(shared, folder, "purge", "valv:rclone-large")


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr warn; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; {rewrite}
        }}
    }}
}}
"""


@pytest.mark.parametrize("accept", [None, "gzip, br"], ids=["as-it-is", "that-rewrites-accept-encoding"])
def test_rclone_works_behind_nginx(shared, folder, dicom, accept):
    """rclone #8206: proxies rewrite Accept-Encoding, which clients sign."""
    nginx = os.environ.get("VALV_NGINX") or shutil.which("nginx")
    if not nginx:
        pytest.skip("no nginx here")
    name = "rclone-nginx-rewrites" if accept else "rclone-nginx"
    port = harness.free_port()
    rewrite = f'proxy_set_header Accept-Encoding "{accept}";' if accept else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=shared.endpoint, rewrite=rewrite))
    os.chmod(folder, 0o755)
    with open(folder / "nginx.log", "wb") as log:
        proxy = subprocess.Popen(
            [nginx, "-c", str(config), "-p", str(folder), "-g", "user root;" if os.geteuid() == 0 else ""],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        import socket

        def listening():
            assert proxy.poll() is None, (folder / "nginx.log").read_text()
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True

        harness.wait_until(listening, "nginx to listen")
        env = {**shared.client_env(folder), "RCLONE_CONFIG_VALV_ENDPOINT": f"http://127.0.0.1:{port}"}
        for words in (
            ["mkdir", f"valv:{name}"],
            ["copy", dicom, f"valv:{name}"],
            ["check", dicom, f"valv:{name}", "--download"],
        ):
            run(need("rclone"), *words, "--retries", "1", env=env)
    finally:
        os.killpg(proxy.pid, 15)
        proxy.wait(30)


def test_aws_cli(shared, folder, dicom_few):
    def aws(*words, **options):
        return run(need("aws"), *words, env=shared.client_env(folder), **options)

    (folder / "aws-config").write_text("[default]\ns3 =\n  signature_version = s3v4\n  addressing_style = path\n")
    aws("s3", "mb", "s3://aws-cli")
    aws("s3", "cp", "--recursive", "--only-show-errors", dicom_few, "s3://aws-cli/a")
    aws("s3", "cp", "--recursive", "--only-show-errors", "s3://aws-cli/a", folder / "back")
    assert local_tree(folder / "back") == local_tree(dicom_few)
    assert aws("s3", "sync", dicom_few, "s3://aws-cli/a").stdout.strip() == ""
    (folder / "large").write_bytes(random_bytes(MIB, 3) * 20)
    aws("s3", "cp", "--only-show-errors", folder / "large", "s3://aws-cli/large")
    url = aws("s3", "presign", "s3://aws-cli/large").stdout.strip()
    run("curl", "-sf", "-o", folder / "curled", url)
    assert (folder / "curled").read_bytes() == (folder / "large").read_bytes()
    aws("s3", "mv", "s3://aws-cli/large", "s3://aws-cli/moved")
    assert aws("s3", "rb", "s3://aws-cli", check=False).returncode != 0
    listing = aws("s3", "ls", "--recursive", "s3://aws-cli").stdout
    assert listing.count("\n") == len(local_tree(dicom_few)) + 1
    aws("s3", "rb", "--force", "s3://aws-cli")
    assert "aws-cli" not in aws("s3", "ls").stdout


def test_s5cmd(shared, folder, dicom):
    def s5cmd(*words):
        return run(need("s5cmd"), "--retry-count", "0", *words, env=shared.client_env(folder))

    s5cmd("mb", "s3://s5cmd")
    s5cmd("cp", f"{dicom}/", "s3://s5cmd/a/")
    s5cmd("cp", "s3://s5cmd/a/*", f"{folder}/back/")
    assert local_tree(folder / "back") == local_tree(dicom)
    s5cmd("rm", "s3://s5cmd/*")
    s5cmd("rb", "s3://s5cmd")


def test_s3cmd(shared, folder, dicom_few):
    host = "%s:%d" % shared.address
    config = folder / "s3cfg"
    config.write_text(
        f"[default]\naccess_key = {harness.ACCESS_KEY}\nsecret_key = {harness.SECRET_KEY}\nhost_base = {host}\n"
        f"host_bucket = {host}\nuse_https = False\nbucket_location = us-east-1\n"
    )

    def s3cmd(*words):
        return run(need("s3cmd"), "-c", config, "--no-progress", *words)

    s3cmd("mb", "s3://s3cmd")
    s3cmd("sync", f"{dicom_few}/", "s3://s3cmd/a/")
    (folder / "back").mkdir()
    s3cmd("get", "--recursive", "s3://s3cmd/a/", f"{folder}/back/")
    assert local_tree(folder / "back") == local_tree(dicom_few)
    (folder / "large").write_bytes(random_bytes(MIB, 4) * 18)
    s3cmd("put", "--multipart-chunk-size-mb=5", folder / "large", "s3://s3cmd/large")
    s3cmd("get", "--force", "s3://s3cmd/large", folder / "large-back")
    assert (folder / "large-back").read_bytes() == (folder / "large").read_bytes()
    s3cmd("info", "s3://s3cmd/large")
    s3cmd("del", "--recursive", "--force", "s3://s3cmd")
    s3cmd("rb", "s3://s3cmd")


def test_restic(shared, folder, dicom):
    shared.s3().create_bucket(Bucket="restic")

    def restic(*words):
        return run(need("restic"), "-r", f"s3:{shared.endpoint}/restic", "--quiet", *words, env=shared.client_env(folder))

    restic("init")
    restic("backup", dicom)
    (folder / "more").write_bytes(random_bytes(5 * MIB))
    restic("backup", dicom, folder / "more")
    restic("check", "--read-data")
    restic("restore", "latest", "--target", folder / "restored")
    assert local_tree(folder / "restored" / dicom.relative_to("/")) == local_tree(dicom)
    restic("forget", "--keep-last", "1", "--prune")


def test_an_older_boto3_works(shared, folder):
    python = os.environ.get("VALV_OLDER_SDK_PYTHON")
    if not python:
        pytest.skip("no environment with an older SDK (tools/pytest.sh sets VALV_OLDER_SDK_PYTHON)")
    script = folder / "older.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, os, boto3, botocore
            from boto3.s3.transfer import TransferConfig
            assert botocore.__version__.startswith("1.35.")
            s3 = boto3.client("s3", endpoint_url=sys.argv[1])
            s3.create_bucket(Bucket="older")
            body = os.urandom(100_000)
            s3.put_object(Bucket="older", Key="a b", Body=body, ContentMD5=None or __import__("base64").b64encode(
                __import__("hashlib").md5(body).digest()).decode())
            assert s3.get_object(Bucket="older", Key="a b")["Body"].read() == body
            big = os.urandom(1 << 20) * 17
            open(sys.argv[2], "wb").write(big)
            s3.upload_file(sys.argv[2], "older", "big", Config=TransferConfig(multipart_chunksize=8 << 20))
            s3.download_file("older", "big", sys.argv[2] + ".back")
            assert open(sys.argv[2] + ".back", "rb").read() == big
            assert [e["Key"] for e in s3.list_objects_v2(Bucket="older")["Contents"]] == ["a b", "big"]
            s3.delete_objects(Bucket="older", Delete={"Objects": [{"Key": "a b"}, {"Key": "big"}]})
            s3.delete_bucket(Bucket="older")
            """
        )
    )
    run(python, script, shared.endpoint, folder / "big", env=shared.client_env(folder))


def test_boto3s_transfer_manager(shared, folder):
    from boto3.s3.transfer import TransferConfig

    s3 = shared.s3()
    s3.create_bucket(Bucket="transfer")
    (folder / "big").write_bytes(random_bytes(MIB, 5) * 40)
    config = TransferConfig(multipart_chunksize=8 * MIB, max_concurrency=6)
    s3.upload_file(str(folder / "big"), "transfer", "big", Config=config)
    s3.download_file("transfer", "big", str(folder / "back"), Config=config)
    assert (folder / "back").read_bytes() == (folder / "big").read_bytes()
