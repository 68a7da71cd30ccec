"""The admin service: who is let in as whom, over the socket and over the network, and that any gRPC client can talk to it."""

import datetime
import ipaddress
import json
import re

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import harness
import people
from harness import ACCESS_KEY, SECRET_KEY, wait_until

SERVICE = "/valv.admin.v1.Credentials/"


# -- certificates ------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder, name: str):
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(self.subject, self.key.public_key(), days=30)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.path = self._write(f"{name}.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def _write(self, name: str, data: bytes):
        path = self.folder / name
        path.write_bytes(data)
        return path

    def _builder(self, subject, public_key, days: int):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def issue(self, name: str, uris=(), days: int = 30):
        """Returns the paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(self.key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return self._write(f"{self.name}-{name}.pem", pem), self._write(f"{self.name}-{name}-key.pem", private)


@pytest.fixture(scope="module")
def authority(module_folder):
    return Authority(module_folder, "authority")


def admin_section(authority, certificate, key) -> str:
    return f"""
[admin]
listen = "127.0.0.1:0"
tls_cert = "{certificate}"
tls_key = "{key}"
client_ca = "{authority.path}"
operators = ["olof"]
"""


@pytest.fixture(scope="module")
def remote(module_folder, authority):
    """A server whose admin service is on the network, with users ada, eve and olof; olof's certificate is an operator's."""
    server = harness.Server(
        module_folder / "remote", name="remote", config=admin_section(authority, *authority.issue("server"))
    )
    server.start(ready="admin")
    for name in ("ada", "eve", "olof"):
        server.valv("user", "add", "--name", name, "--project", f"of-{name}", "--access-key-id", f"KEY-{name.upper()}")
    yield server
    try:
        server.assert_clean_log()
        assert not re.search(r"valv-[0-9a-zA-Z]{40}", server.log()), "no token is logged"
        assert server.terminate() == 0
    finally:
        server.kill()


# -- ways in -----------------------------------------------------------------------------------------------------------


def over_socket(server, *words, token=None, check=True):
    return server.valv("admin", *words, check=check, env={"VALV_TOKEN": token or ""})


def over_network(server, authority, *words, token=None, pair=None, check=True, group="admin"):
    options = ["--server", server.announced["admin"], "--ca", authority.path]
    if pair:
        options += ["--client-cert", pair[0], "--client-key", pair[1]]
    return harness.run(harness.binary(), group, *words, *options, check=check, env={"VALV_TOKEN": token or ""})


def make_token(server, name: str, *words, **options) -> dict:
    return json.loads(over_socket(server, "token", "create", "--user", name, "--json", *words, **options).stdout)


def whoami(run) -> tuple:
    me = json.loads(run.stdout)
    return me["user"], me["operator"]


def grpc_channel(server, authority, token=None, pair=None):
    address = server.announced["admin"].removeprefix("https://")
    files = [path.read_bytes() for path in pair[::-1]] if pair else [None, None]
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes(), *files)
    if token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(address, credentials)


class Dynamic:
    """A client that has no .proto files: it learns everything by reflection, as grpcurl does."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def call(self, service: str, method: str, **fields):
        found = self.pool.FindServiceByName(f"valv.admin.v1.{service}").methods_by_name[method]
        request = message_factory.GetMessageClass(found.input_type)(**fields)
        reply = message_factory.GetMessageClass(found.output_type)
        path = f"/valv.admin.v1.{service}/{method}"
        unary = self.channel.unary_unary(path, type(request).SerializeToString, reply.FromString)
        return unary(request, timeout=harness.PATIENCE_S)


def refusal(call, *arguments, **fields) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    return caught.value.code()


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_a_token_makes_its_user_until_it_is_revoked(shared):
    shared.valv("user", "add", "--name", "tove", "--project", "tove", "--access-key-id", "KEY-TOVE")
    assert whoami(over_socket(shared, "whoami", "--json")) == ("", True)
    made = make_token(shared, "tove", "--days", "7", "--description", "laptop")
    token = made["token"]
    assert re.fullmatch(r"valv-[A-Za-z0-9_-]{64}", token)
    assert (made["user"], made["operator"], made["state"], made["made_by"]) == ("tove", False, "valid", "operator")
    # On the socket, too, who shows a token is its user and no operator.
    assert whoami(over_socket(shared, "whoami", "--json", token=token)) == ("tove", False)
    refused = shared.valv("user", "list", check=False, env={"VALV_TOKEN": token})
    assert refused.returncode != 0 and "for operators only" in refused.stderr
    for words in (["token", "list", "--user", "admin"], ["token", "create", "--user", "admin"], ["token", "create", "--operator"]):
        refused = over_socket(shared, *words, token=token, check=False)
        assert refused.returncode != 0 and "operator" in refused.stderr, refused.stderr

    own = json.loads(over_socket(shared, "token", "create", "--json", token=token).stdout)
    assert own["made_by"] == "user"
    listed = json.loads(over_socket(shared, "token", "list", "--json", token=own["token"]).stdout)
    assert [one["id"] for one in listed] == [made["id"], own["id"]]
    assert listed[0]["description"] == "laptop" and "token" not in listed[0]
    refused = over_socket(shared, "token", "revoke", made["id"], check=False, token=own["token"])
    assert "say --yes" in refused.stderr
    over_socket(shared, "token", "revoke", made["id"], "--yes", token=own["token"])
    refused = over_socket(shared, "whoami", token=token, check=False)
    assert refused.returncode != 0 and "these credentials are not valid" in refused.stderr
    assert token not in refused.stderr
    # By the operator, and from a file.
    path = shared.folder / "token"
    path.write_text(own["token"] + "\n")
    assert whoami(over_socket(shared, "whoami", "--json", "--token-file", path)) == ("tove", False)
    over_socket(shared, "token", "revoke", own["id"], "--yes")
    assert over_socket(shared, "whoami", "--token-file", path, check=False).returncode != 0
    states = {one["id"]: one["state"] for one in json.loads(over_socket(shared, "token", "list", "--json").stdout)}
    assert states[made["id"]] == states[own["id"]] == "revoked"


def test_every_token_is_in_the_ledgers_without_its_secret(shared):
    shared.valv("user", "add", "--name", "lars", "--project", "of-lars", "--access-key-id", "KEY-LARS")
    made = make_token(shared, "lars", "--description", "night job")
    over_socket(shared, "token", "revoke", made["id"], "--yes")
    for which, name in ((["--project", "of-lars"], "lars.jsonl"), (["--cluster"], "cluster.jsonl")):
        out = shared.folder / name
        shared.valv("ledger", "export", *which, "--out", out)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        found = [
            (line["event"]["kind"], line["names"]["caller"][:30])
            for line in lines
            if made["id"] in json.dumps(line.get("names"))
        ]
        by = "operator on the server's socke"
        assert found == [("token created", by), ("token revoked", by)], lines
        assert made["token"] not in out.read_text()
    # Nor is it anywhere on the disks.
    secret = made["token"].removeprefix("valv-").encode()
    for path in shared.data.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path


@pytest.mark.parametrize("shown", ["valv-nonsense", SECRET_KEY, ACCESS_KEY, "valv-" + "A" * 64])
def test_what_is_no_token_is_refused(shared, remote, authority, shown):
    """The keys of S3 above all."""
    run = over_socket(shared, "whoami", token=shown, check=False)
    assert run.returncode != 0 and shown not in run.stderr
    with grpc_channel(remote, authority, token=shown) as channel:
        bare = channel.unary_unary(SERVICE + "WhoAmI")
        with pytest.raises(grpc.RpcError) as caught:
            bare(b"", timeout=harness.PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "these credentials are not valid"
    wait_until(lambda: "credentials for the admin service were refused" in remote.log(), "the refusal in the log")


# -- over the network --------------------------------------------------------------------------------------------------


def test_commands_work_over_the_network_as_the_tokens_user(remote, authority):
    operator = make_token(remote, "olof", "--operator")["token"]
    assert whoami(over_network(remote, authority, "whoami", "--json", token=operator)) == ("olof", True)
    users = over_network(remote, authority, "list", "--json", token=operator, group="user")
    assert {"ada", "eve", "olof"} <= {user["name"] for user in json.loads(users.stdout)}
    status = json.loads(over_network(remote, authority, "status", "--json", "--census", token=operator).stdout)
    assert len(status["disks"]) == 6 and status["census"]
    out = remote.folder / "metadata.jsonl"
    over_network(remote, authority, "export", "--out", out, token=operator, group="metadata")
    assert out.exists()

    ada = make_token(remote, "ada")["token"]
    for group, words in (("user", ["list"]), ("admin", ["status"]), ("metadata", ["export", "--out", remote.folder / "no"])):
        refused = over_network(remote, authority, *words, token=ada, group=group, check=False)
        assert refused.returncode != 0 and "for operators only" in refused.stderr, (group, refused.stderr)
    nobody = over_network(remote, authority, "whoami", check=False)
    assert nobody.returncode != 0 and "show a token" in nobody.stderr and "--token-file" in nobody.stderr
    # The socket's operator makes no tokens for olof any more than for others; the network has no local operator at all.
    assert over_network(remote, authority, "token", "list", check=False).returncode != 0


def test_client_certificates_name_users_and_the_configuration_names_operators(remote, authority, module_folder):
    ada = authority.issue("ada", ["valv:user:ada"])
    assert whoami(over_network(remote, authority, "whoami", "--json", pair=ada)) == ("ada", False)
    olof = authority.issue("olof", ["valv:user:olof"])
    assert whoami(over_network(remote, authority, "whoami", "--json", pair=olof)) == ("olof", True)
    # A token that comes along decides.
    eve = make_token(remote, "eve")["token"]
    assert whoami(over_network(remote, authority, "whoami", "--json", pair=olof, token=eve)) == ("eve", False)

    for pair in (
        authority.issue("nobody", ["valv:user:nobody"]),
        authority.issue("olof-by-name-alone"),
        authority.issue("two", ["valv:user:ada", "valv:user:olof"]),
    ):
        refused = over_network(remote, authority, "whoami", pair=pair, check=False)
        assert refused.returncode != 0 and "these credentials are not valid" in refused.stderr
    foreign = Authority(module_folder, "foreign")
    for pair in (foreign.issue("olof", ["valv:user:olof"]), authority.issue("late", ["valv:user:olof"], days=-1)):
        refused = over_network(remote, authority, "whoami", pair=pair, check=False)
        assert refused.returncode != 0 and "credentials are not valid" not in refused.stderr, refused.stderr
    # And the other way round: a server that is not the one is told nothing.
    refused = over_network(remote, foreign, "whoami", token=eve, check=False)
    assert refused.returncode != 0 and "no server answers" in refused.stderr


def test_the_network_is_refused_without_tls(make_server, remote):
    server = make_server(config='[admin]\nlisten = "0.0.0.0:0"\n', start=False)
    with pytest.raises(harness.ServerEnded):
        server.start()
    assert "admin.listen: 0.0.0.0:0 is not a loopback address: refused without tls_cert and tls_key" in server.log()
    # A client refuses as well, before it has sent anything.
    run = harness.run(harness.binary(), "admin", "whoami", "--server", "http://192.0.2.1:9443", check=False)
    assert run.returncode != 0 and "only https leaves this machine" in run.stderr
    plain = grpc.insecure_channel(remote.announced["admin"].removeprefix("https://"))
    with plain:
        assert refusal(plain.unary_unary(SERVICE + "WhoAmI"), b"", timeout=10) == grpc.StatusCode.UNAVAILABLE


# -- operators and controllers -----------------------------------------------------------------------------------------


def test_an_operator_can_not_become_a_controller_by_a_token(shared):
    kim, una = people.Person(shared, "kim"), people.Person(shared, "una")
    odd = people.Person(shared, "odd", operator=True)
    people.governed(shared, "locked", kim)
    own = kim.json("admin", "token", "create")
    for name, run in (("odd", odd.run), ("local", shared.valv)):
        refused = run("admin", "token", "create", "--user", "kim", check=False)
        assert refused.returncode != 0 and "with the user's own token, not by an operator" in refused.stderr, name
        out = shared.folder / f"{name}.jsonl"
        refused = run("ledger", "export", "--project", "locked", "--out", out, check=False)
        assert refused.returncode != 0 and "operators can't" in refused.stderr and not out.exists(), name
    # Revoking all that the controller has opens no way round.
    for token in json.loads(odd.run("admin", "token", "list", "--user", "kim", "--json").stdout):
        if token["id"] != own["id"]:
            odd.run("admin", "token", "revoke", token["id"], "--yes")
    assert odd.run("admin", "token", "create", "--user", "kim", check=False).returncode != 0
    kim.token = own["token"]
    out = shared.folder / "kim.jsonl"
    kim.run("ledger", "export", "--project", "locked", "--out", out)
    kinds = [json.loads(line).get("event", {}).get("kind") for line in out.read_text().splitlines()]
    assert kinds.count("token created") == 1 and kinds.count("token revoked") == 1, kinds
    # A stranger is told the same of a project that is there and of one that is not.
    said = [una.refused("ledger", "export", "--project", name, "--out", shared.folder / "no.jsonl") for name in ("locked", "nowhere")]
    assert said[0] == said[1] and "no such project" in said[0]


# -- any client --------------------------------------------------------------------------------------------------------


def test_health_and_reflection_answer_strangers_and_nothing_else_does(remote, authority):
    with grpc_channel(remote, authority) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=harness.PATIENCE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        dynamic = Dynamic(channel)
        services = set(dynamic.database.get_services())
        assert {"valv.admin.v1.Admin", "valv.admin.v1.Credentials", "grpc.health.v1.Health"} <= services
        assert not any(name.startswith(("valv.shard", "valv.metadata")) for name in services)
        for service in sorted(name for name in services if name.startswith("valv.admin.v1.")):
            methods = dynamic.pool.FindServiceByName(service).methods_by_name
            assert methods, service
            for method in methods:
                assert refusal(channel.unary_unary(f"/{service}/{method}"), b"", timeout=harness.PATIENCE_S) == (
                    grpc.StatusCode.UNAUTHENTICATED
                ), f"{service}/{method} answers strangers"


def test_a_client_without_our_proto_files_makes_a_token_and_reads_errors_details(remote, authority):
    operator = make_token(remote, "olof", "--operator")["token"]
    with grpc_channel(remote, authority, token=operator) as channel:
        dynamic = Dynamic(channel)
        assert dynamic.call("Admin", "Status").healthy in (True, False)
        made = dynamic.call("Credentials", "CreateToken", user="eve", days=1)
        assert made.token.user == "eve" and made.secret.startswith("valv-")
        for fields, code, reason, field in (
            ({"user": "eve", "days": 4000}, grpc.StatusCode.INVALID_ARGUMENT, "DAYS_OUT_OF_RANGE", "days"),
            ({"user": "nobody"}, grpc.StatusCode.NOT_FOUND, "NO_SUCH_USER", None),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                dynamic.call("Credentials", "CreateToken", **fields)
            assert caught.value.code() == code
            status = rpc_status.from_call(caught.value)
            info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            assert any(detail.Unpack(info) for detail in status.details)
            assert (info.domain, info.reason) == ("valv", reason)
            bad = [detail.Unpack(violations) for detail in status.details]
            assert any(bad) == (field is not None)
            assert [one.field for one in violations.field_violations] == ([field] if field else [])


def test_reflection_answers_the_current_and_the_older_protocol(remote, authority):
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc_channel(remote, authority) as channel:
        older = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        names = [one.name for one in next(older).list_services_response.service]
        # The messages of both are the same but for their package.
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        current = [one.name for one in next(call(iter([request]))).list_services_response.service]
    assert "valv.admin.v1.Credentials" in names and "valv.admin.v1.Credentials" in current


def test_wrong_credentials_by_the_hundred_hold_nobody_up(remote, authority):
    good = make_token(remote, "ada")["token"]
    with grpc_channel(remote, authority, token="valv-" + "B" * 64) as bad, grpc_channel(remote, authority, token=good) as fine:
        tried = [bad.unary_unary(SERVICE + "WhoAmI").future(b"", timeout=harness.PATIENCE_S) for _ in range(200)]
        assert fine.unary_unary(SERVICE + "WhoAmI")(b"", timeout=harness.PATIENCE_S)
        codes = {call.code() for call in tried if call.exception()}
    assert len(tried) == sum(1 for call in tried if call.exception())
    assert codes <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    logged = remote.log().count("credentials for the admin service were refused")
    assert logged < 100, "refusals are logged at a bounded rate"


def test_the_completions_know_every_group(shared):
    script = harness.run(harness.binary(), "completions", "bash").stdout
    for words in ("whoami", "revoke", "--operator", "--token-file", "--client-cert"):
        assert words in script, words
