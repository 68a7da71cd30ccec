"""Fixtures: servers that end with their test, whose logs are shown when it fails, that never panic and log no secret."""

import os
import pathlib
import random
import shutil
import tempfile

import pytest

import harness
import trio

_servers: list[harness.Server] = []


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for server in _servers:
            report.sections.append((f"end of {server.log_path}", server.log_tail(120)))


@pytest.fixture(autouse=True)
def clean_logs():
    """A panic or a secret in any server's log fails the test during which it got there."""
    yield
    for server in _servers:
        server.assert_clean_log()


@pytest.fixture
def folder():
    """A folder of the test's own, removed afterwards unless VALV_KEEP is set."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="valv-test-"))
    yield path
    if not os.environ.get("VALV_KEEP"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def module_folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="valv-test-"))
    yield path
    if not os.environ.get("VALV_KEEP"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_server(folder):
    """Makes servers, each over its own folder, and kills them when the test is over."""
    made = []

    def make(name: str = "valv", config: str | None = None, start: bool = True, env: dict | None = None):
        server = harness.Server(folder / name, config=config, name=name, env=env)
        made.append(server)
        _servers.append(server)
        return server.start() if start else server

    yield make
    for server in made:
        server.kill()
        server.assert_clean_log()
        _servers.remove(server)


@pytest.fixture
def server(make_server):
    """A fresh server with the defaults: one process, six disks, 4+2."""
    return make_server()


@pytest.fixture(scope="module")
def shared(module_folder):
    """One server for all tests of a file that only need buckets of their own."""
    server = harness.Server(module_folder / "shared", name="shared")
    _servers.append(server)
    server.start()
    yield server
    try:
        server.assert_clean_log()
        assert server.terminate() == 0
    finally:
        server.kill()
        _servers.remove(server)


@pytest.fixture
def s3(shared):
    return shared.s3()


@pytest.fixture
def bucket(shared):
    """A bucket of the test's own on the shared server."""
    name = f"bucket-{random.randrange(10**12):012d}"
    shared.s3().create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def trio_server(module_folder):
    """A server whose users main, alt and third have projects of their own in one namespace."""
    server = harness.Server(module_folder / "trio", name="trio", config=trio.CONFIG).start()
    yield server
    try:
        server.assert_clean_log()
        for name in trio.NAMES:
            assert f"the-secret-of-{name}" not in server.log()
    finally:
        server.kill()


@pytest.fixture
def main(trio_server):
    return trio.client(trio_server, "main")


@pytest.fixture
def alt(trio_server):
    return trio.client(trio_server, "alt")


@pytest.fixture
def third(trio_server):
    return trio.client(trio_server, "third")


@pytest.fixture
def nobody(trio_server):
    return trio.client(trio_server, None)
