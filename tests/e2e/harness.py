"""Runs the real `valv` binary on a folder of its own, and speaks to it over real sockets.

Nothing here sleeps and hopes: `wait_until` polls a condition. Every server has its own process group, picks its own
port, and is killed when its test ends.
"""

import atexit
import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import boto3
import botocore.config
from botocore.exceptions import ClientError

REPO = pathlib.Path(__file__).resolve().parents[2]
ACCESS_KEY = "VALVTESTACCESSKEY001"
SECRET_KEY = "test-secret-0123456789-abcdefghijklmnop"
REGION = "us-east-1"
MIB = 1 << 20
# Generous: the machine may be busy with a build. Nothing waits this long when things are right.
PATIENCE_S = 60.0

# The user's own proxies, certificates and cloud settings must not reach the programs under test.
for _name in list(os.environ):
    if _name.upper().startswith(("AWS_", "RCLONE_", "RESTIC_", "S3_", "VALV_ACCESS", "VALV_SECRET", "VALV_LOG", "VALV_TOKEN", "VALV_SERVER", "VALV_CLIENT")) or _name.lower() in (
        "http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "ssl_cert_file", "ssl_cert_dir", "curl_ca_bundle",
    ):  # fmt: skip
        del os.environ[_name]


def binary() -> str:
    found = os.environ.get("VALV_BIN")
    if not found:
        target = os.environ.get("CARGO_TARGET_DIR", str(REPO / "target"))
        found = str(pathlib.Path(target) / "release" / "valv")
    return found


def wait_until(condition, what: str, timeout_s: float = PATIENCE_S, interval_s: float = 0.05):
    """Polls until `condition()` is true and returns its value; exceptions of the last try are kept."""
    deadline = time.monotonic() + timeout_s
    problem = None
    while True:
        try:
            value = condition()
            if value:
                return value
            problem = None
        except Exception as error:  # noqa: BLE001 - a condition that can't be asked yet is not met yet
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain for: {what}") from problem
        time.sleep(interval_s)


def run(*command, check=True, env=None, timeout_s=300, **options) -> subprocess.CompletedProcess:
    """Runs a program to its end; its output is in the error message if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        **options,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command[0]} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Reproducible bytes that do not compress."""
    return random.Random(seed * 1_000_003 + size).randbytes(size)


def md5_hex(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


_at_exit: set["Server"] = set()


@atexit.register
def _kill_what_is_left():
    """Whatever way the test run ends, no server outlives it."""
    for server in _at_exit:
        server.kill()


class Server:
    """One `valv server` process and the folder it works on.

    `env` goes over the environment; a value of None takes a variable out of it.
    """

    def __init__(self, folder: pathlib.Path, config: str | None = None, name: str = "valv", env: dict | None = None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.name = name
        self.config = config
        self.env = env or {}
        self.process: subprocess.Popen | None = None
        self.starts = 0
        self.announced: dict[str, str] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def log_path(self) -> pathlib.Path:
        return self.folder / f"{self.name}.log"

    def announcement(self) -> str:
        """What this start printed on standard output."""
        return self._out_path().read_text()

    def _out_path(self) -> pathlib.Path:
        return self.folder / f"{self.name}.{self.starts}.out"

    def spawn(self):
        """Starts the process without waiting for it to be ready."""
        assert self.process is None or self.process.poll() is not None, "the server runs already"
        self.starts += 1
        _at_exit.add(self)
        command = [binary(), "server", "--data", str(self.data)]
        if self.config is None or "[gateway]" in self.config or "roles" not in self.config:
            command += ["--listen", "127.0.0.1:0"]
        if self.config is not None:
            path = self.folder / f"{self.name}.toml"
            path.write_text(self.config)
            command += ["--config", str(path)]
        env = {**os.environ, "VALV_ACCESS_KEY_ID": ACCESS_KEY, "VALV_SECRET_ACCESS_KEY": SECRET_KEY, **self.env}
        env = {"RUST_BACKTRACE": "1", **{name: value for name, value in env.items() if value is not None}}
        with open(self.log_path, "ab") as log, open(self._out_path(), "wb") as out:
            log.write(f"---- start {self.starts}: {' '.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True, env=env
            )
        return self

    def start(self, ready: str = "endpoint"):
        """Starts the process and waits until it has announced `ready` and takes connections there."""
        self.spawn()

        def announced():
            if self.process.poll() is not None:
                raise ServerEnded(f"the server ended with {self.process.returncode}:\n{self.log_tail()}")
            text = self.announcement()
            self.announced = dict(re.findall(r"^(endpoint|metadata|storage|admin) = (http\S+)$", text, re.M))
            return ready in self.announced

        deadline = time.monotonic() + PATIENCE_S
        while not announced():
            if time.monotonic() > deadline:
                raise AssertionError(f"the server did not get ready:\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def kill(self):
        """kill -9: no farewell, no flush."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM: drains and ends. Returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the server did not end on SIGTERM:\n{self.log_tail()}") from None
        return self.process.returncode

    def restart(self, kill: bool = False):
        if kill:
            self.kill()
        else:
            assert self.terminate() == 0
        return self.start()

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # -- what it says ----------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        return self.announced["endpoint"]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.endpoint.rsplit("/", 1)[1].rsplit(":", 1)
        return host, int(port)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def assert_clean_log(self):
        """No panic, and no secret: neither the configured ones nor one that the server made and printed once."""
        secrets = {SECRET_KEY}
        for start in range(1, self.starts + 1):
            out = self.folder / f"{self.name}.{start}.out"
            if out.exists():
                secrets.update(re.findall(r"^secret_access_key = (\S+)$", out.read_text(), re.M))
        for number, line in enumerate(self.log().splitlines(), 1):
            assert "panicked at" not in line, f"{self.log_path}:{number}: {line}"
            for secret in secrets:
                assert secret not in line, f"{self.log_path}:{number} holds a secret"

    def memory_bytes(self, field: str = "VmHWM") -> int:
        """Peak (VmHWM) or current (VmRSS) resident memory."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB$", status, re.M)[1]) * 1024

    # -- commands --------------------------------------------------------------------------------------------------

    def valv(self, *words, check=True, **options) -> subprocess.CompletedProcess:
        return run(binary(), *words, "--data", self.data, check=check, **options)

    def let_policies_decide(self, project: str = "default"):
        """Policies and ACLs of the project's buckets decide about everybody, as S3 has it: nobody gets in without."""
        self.valv("project", "opening", "create", project, "--to-public", "--policies-decide", "--purpose", "a test", "--reference", "-")

    def status(self, census: bool = False, verify: bool = False) -> dict:
        words = ["status", "--json"] + (["--census"] if census else []) + (["--verify"] if verify else [])
        return json.loads(self.valv(*words).stdout)

    def wait_healthy(self, timeout_s: float = 120.0) -> dict:
        """Waits until a census that started now agrees with the metadata."""

        def healthy():
            status = self.status(census=True)
            return status if status["healthy"] and status["repair_queue"] == 0 else None

        return wait_until(healthy, "a census that agrees", timeout_s, interval_s=0.2)

    def disk_folder(self, index: int) -> pathlib.Path:
        return self.data / "disks" / f"d{index}"

    def move_disk_away(self, index: int) -> pathlib.Path:
        """What a pulled cable looks like: the folder is gone, its bytes live on elsewhere."""
        away = self.folder / f"away-d{index}"
        self.disk_folder(index).rename(away)
        return away

    def bring_disk_back(self, index: int):
        (self.folder / f"away-d{index}").rename(self.disk_folder(index))

    def wait_disks(self, state: str, indexes, timeout_s: float = PATIENCE_S):
        """Waits until the server has noticed that these disks are in this state."""
        names = {f"d{index}" for index in indexes}

        def noticed():
            states = {disk["name"]: disk["state"].lower() for disk in self.status()["disks"]}
            return all(states.get(name) == state for name in names)

        wait_until(noticed, f"disks {sorted(names)} to be {state}", timeout_s, interval_s=0.1)

    # -- clients ---------------------------------------------------------------------------------------------------

    def s3(self, key: tuple[str, str] = (ACCESS_KEY, SECRET_KEY), **config):
        """A boto3 client that does not retry, so that a test sees what the server said. `key` is an access key."""
        options = {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "s3": {"addressing_style": "path"},
            "max_pool_connections": 64,
            "connect_timeout": 10,
            "read_timeout": 120,
            **config,
        }
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=key[0],
            aws_secret_access_key=key[1],
            region_name=REGION,
            config=botocore.config.Config(**options),
        )

    def client_env(self, folder: pathlib.Path) -> dict:
        """An environment in which aws, s5cmd, restic and rclone find this server, and none of the user's own files."""
        return {
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": str(folder / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_MAX_ATTEMPTS": "1",
            "S3_ENDPOINT_URL": self.endpoint,
            "RCLONE_CONFIG": str(folder / "rclone.conf"),
            "RCLONE_CONFIG_VALV_TYPE": "s3",
            "RCLONE_CONFIG_VALV_PROVIDER": "Other",
            "RCLONE_CONFIG_VALV_ENV_AUTH": "false",
            "RCLONE_CONFIG_VALV_ACCESS_KEY_ID": ACCESS_KEY,
            "RCLONE_CONFIG_VALV_SECRET_ACCESS_KEY": SECRET_KEY,
            "RCLONE_CONFIG_VALV_REGION": REGION,
            "RCLONE_CONFIG_VALV_ENDPOINT": self.endpoint,
            "RCLONE_CONFIG_VALV_FORCE_PATH_STYLE": "true",
            "RESTIC_PASSWORD": "restic-test",
            "RESTIC_CACHE_DIR": str(folder / "restic-cache"),
        }


class ServerEnded(AssertionError):
    """The server ended when it should have started."""


def free_port() -> int:
    """A port that nobody uses now: for programs other than Valv that can't pick one themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def remove_tree(path: pathlib.Path):
    shutil.rmtree(path, ignore_errors=False)


def error_code(error) -> str:
    """The S3 code of a botocore ClientError."""
    return error.response["Error"]["Code"]


def error_status(error) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def refused(call, code: str = "AccessDenied", status: int | None = None, message: str = "") -> dict:
    """The answer to a call that has to be refused."""
    try:
        call()
    except ClientError as error:
        assert error_code(error) == code, error
        assert status is None or error_status(error) == status, error
        assert message in str(error), error
        return error.response
    raise AssertionError(f"not refused, where {code} was expected")


def empty_and_delete(s3, bucket: str):
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if keys:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    s3.delete_bucket(Bucket=bucket)


def local_tree(folder: pathlib.Path) -> dict[str, str]:
    """Relative path to SHA-256 of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
