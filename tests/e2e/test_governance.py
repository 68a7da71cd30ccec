"""The worked examples in docs/ can't rot: they are run as they stand there (see worked_examples.py)."""

import pytest

import worked_examples
from harness import REPO

PAGES = ["governance.md", "operations.md"]
EXAMPLES = [
    pytest.param(example, id=f"{page}:{example.name}")
    for page in PAGES
    for example in worked_examples.examples_of((REPO / "docs" / page).read_text()).values()
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_worked_example_does_what_the_page_says(make_server, folder, example):
    server = make_server(config=example.config)
    worked_examples.run(example, server, folder / "reader")


SAMPLE = """
# Page

```sh test:one
export NAME=ada
echo "hello $NAME" \\
  again
```
```text test:one
hello ada ...
```
<!-- config:one
metrics = "127.0.0.1:0"
-->
```sh
echo not run
```
<!-- test:one
valv no-such-command # refused
-->
```sh test:two
true # refused
```
"""


def test_blocks_of_a_page_become_scripts(tmp_path):
    one, two = worked_examples.examples_of(SAMPLE).values()
    assert (one.name, two.name) == ("one", "two")
    assert one.config == 'metrics = "127.0.0.1:0"\n'
    assert [kind for kind, _, _ in one.steps] == ["run", "output", "run"]
    script = worked_examples.script_of(one)
    assert 'echo "hello $NAME" again' in script and "not run" not in script
    assert "if valv no-such-command; then" in script


def test_output_is_found_in_order_with_gaps_and_wider_columns():
    output = "custodian   Uni A\nid          1234\nuntil  2033-12-31\n"
    assert worked_examples.missing_lines("custodian Uni A\nuntil 2033-...\n", output) == []
    assert worked_examples.missing_lines("until 2033-12-31\ncustodian Uni A", output) == ["custodian Uni A"]
    assert worked_examples.missing_lines("id ... 99", output) == ["id ... 99"]


def test_a_command_that_should_be_refused_and_is_not_ends_the_example(shared, tmp_path):
    two = worked_examples.examples_of(SAMPLE)["two"]
    with pytest.raises(AssertionError, match="NOT REFUSED"):
        worked_examples.run(two, shared, tmp_path / "reader")
