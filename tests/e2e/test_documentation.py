"""docs/s3.md can't rot: every row of its tables names tests that exist, and every operation has a row.

A row names its tests in backticks: `test_file.py::test_name`, `test_name` in the file named last, `test_file.py` as a
whole, or a Rust file with tests in it, from the root of the repository or from `gateway/src/`.
"""

import pathlib
import re

import pytest

from harness import REPO

PAGE = REPO / "docs" / "s3.md"
ROUTER = REPO / "gateway" / "src" / "router.rs"
# Names that AWS writes longer than the router, or that stand together in one row.
LONG_NAMES = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "DeleteBucketLifecycle": "DeleteBucketLifecycleConfiguration",
    "GetBucketAccelerate": "GetBucketAccelerateConfiguration",
    "PutBucketAccelerate": "PutBucketAccelerateConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "GetBucketAnalytics": "GetBucketAnalyticsConfiguration",
    "ListBucketAnalytics": "ListBucketAnalyticsConfigurations",
    "GetBucketInventory": "GetBucketInventoryConfiguration",
    "ListBucketInventory": "ListBucketInventoryConfigurations",
    "GetBucketMetrics": "GetBucketMetricsConfiguration",
    "ListBucketMetrics": "ListBucketMetricsConfigurations",
    "GetBucketIntelligentTiering": "GetBucketIntelligentTieringConfiguration",
    "ListBucketIntelligentTiering": "ListBucketIntelligentTieringConfigurations",
    "Preflight": "OPTIONS",
    "PostObject": "POST",
}


def rows():
    """Every row as (heading, first cell, last cell), in order."""
    out, heading = [], ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
        # A bar inside of a cell is written \|.
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if len(cells) >= 3 and not set(cells[0]) <= set("-: ") and cells[1] != "State":
            out.append((heading, cells[0], cells[-1]))
    return out


def functions_of(path: pathlib.Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M))


def has_rust_tests(path: pathlib.Path) -> bool:
    """Tests in the file itself, or in the test files of its module."""
    folders = [path.with_suffix(""), path.parent / "tests", path.parent]
    files = [path, *(file for folder in folders for file in (folder / "tests.rs", *sorted(folder.glob("tests/*.rs"))))]
    return any(file.exists() and re.search(r"#\[(tokio::)?test\b", file.read_text()) for file in files)


def problems_of(cell: str) -> list[str]:
    """What is wrong with a row's references."""
    problems, references, file = [], 0, None
    for text in re.findall(r"`([^`]+)`", cell):
        if match := re.fullmatch(r"(test_\w+\.py)(?:::(test_\w+))?", text):
            file = REPO / "tests" / "e2e" / match[1]
            if not file.exists():
                problems.append(f"{match[1]} is not there")
            elif match[2] and match[2] not in functions_of(file):
                problems.append(f"{match[1]} has no {match[2]}")
        elif re.fullmatch(r"test_\w+", text):
            if file is None or not file.exists() or text not in functions_of(file):
                problems.append(f"{text} is in none of the files named before it")
        elif re.fullmatch(r"[\w/-]+\.rs", text):
            found = [path for path in (REPO / text, REPO / "gateway" / "src" / text) if path.exists()]
            if not found:
                problems.append(f"{text} is not there")
            elif not any(has_rust_tests(path) for path in found):
                problems.append(f"{text} has no tests")
        else:
            continue
        references += 1
    return problems if references else ["no test is named"]


def test_every_row_names_tests_that_exist():
    found = rows()
    assert len(found) > 50, "the tables are not read"
    wrong = []
    for _, first, last in found:
        wrong += [f"{first}: {problem}" for problem in problems_of(last)]
    assert not wrong, "\n".join(["rows of docs/s3.md without their tests:", *wrong])


def named_operations(cell: str) -> set[str]:
    """The operations of a first cell: `Get-, Put-, DeleteBucketTagging` are three."""
    names = set()
    for group in cell.split(";"):
        words = re.findall(r"[A-Z]\w*-?", group)
        whole = [word for word in words if not word.endswith("-")]
        names.update(whole)
        for index, word in enumerate(words):
            if word.endswith("-"):
                # The next whole name says what the verb is of.
                following = next((later for later in words[index:] if not later.endswith("-")), None)
                assert following, f"{cell}: {word} is of nothing"
                names.add(word.rstrip("-") + re.sub(r"^[A-Z][a-z]+", "", following))
    return names


def test_every_operation_has_a_row():
    text = ROUTER.read_text()
    block = re.search(r"^operations! \{(.*?)^\}", text, re.S | re.M)[1]
    operations = re.findall(r"\b([A-Z]\w+);", block)
    assert len(operations) > 60, "the router's list is not read"
    named = set().union(*(named_operations(first) for _, first, _ in rows()))
    missing = [name for name in operations if LONG_NAMES.get(name, name) not in named and name not in named]
    assert not missing, f"operations without a row in docs/s3.md: {missing}"


@pytest.mark.parametrize(
    "cell, expected",
    [
        ("nothing", ["no test is named"]),
        ("`test_documentation.py`", []),
        ("`test_documentation.py::test_every_operation_has_a_row`, `test_every_row_names_tests_that_exist`", []),
        ("`test_documentation.py::test_none`", ["test_documentation.py has no test_none"]),
        ("`test_none.py`", ["test_none.py is not there"]),
        ("`test_none`", ["test_none is in none of the files named before it"]),
        ("`router.rs`", []),
        ("`limits.rs`, `nowhere.rs`", ["limits.rs has no tests", "nowhere.rs is not there"]),
    ],
)
def test_what_is_wrong_with_a_row_is_seen(cell, expected):
    assert problems_of(cell) == expected


def test_short_forms_of_operations_are_read():
    assert named_operations("Get-, Put-, DeleteBucketTagging") == {
        "GetBucketTagging",
        "PutBucketTagging",
        "DeleteBucketTagging",
    }
    assert named_operations("Get-, PutBucketLogging; HeadBucket") == {"GetBucketLogging", "PutBucketLogging", "HeadBucket"}
