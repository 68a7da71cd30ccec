"""The soak tests use the end-to-end tests' harness and fixtures."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import importlib.util

_spec = importlib.util.spec_from_file_location(
    "e2e_conftest", pathlib.Path(__file__).resolve().parents[1] / "e2e" / "conftest.py"
)
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
globals().update({name: value for name, value in vars(_fixtures).items() if not name.startswith("__")})
