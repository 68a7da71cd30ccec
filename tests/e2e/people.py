"""People who administer: users with tokens, governed projects, and the `valv` command in their hands."""

import json
import os

import harness


class Person:
    """A user with a token. `run` is the `valv` command as that person types it."""

    def __init__(self, server, name: str, operator: bool = False):
        self.server, self.name = server, name
        self.key = (f"KEY{name.upper()}".ljust(16, "0"), f"secret-of-{name}".ljust(32, "x"))
        server.valv(
            "user", "add", "--name", name, "--project", f"own-{name}", "--access-key-id", self.key[0], "--json",
            env={"VALV_SECRET_ACCESS_KEY": self.key[1]},
        )  # fmt: skip
        words = ["admin", "token", "create", "--user", name, "--json"] + (["--operator"] if operator else [])
        self.token = json.loads(server.valv(*words).stdout)["token"]

    def run(self, *words, check=True, **options):
        env = {**options.pop("env", {}), "VALV_TOKEN": self.token}
        return self.server.valv(*words, check=check, env=env, **options)

    def json(self, *words):
        return json.loads(self.run(*words, "--json").stdout)

    def refused(self, *words) -> str:
        """What the server says against it."""
        done = self.run(*words, check=False)
        assert done.returncode != 0, f"{words} was not refused: {done.stdout}"
        return done.stderr


def governed(server, name: str, controller: Person, **options) -> None:
    """A governed project of this controller."""
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    server.valv("project", "create", name, "--controller", controller.name, *words)
