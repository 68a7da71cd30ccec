"""Listings of random keys against a sorted map, over HTTP: control characters, bytes that are not UTF-8, runs of slashes,
keys that are prefixes of others; every kind of listing, every combination of prefix, delimiter, marker and page size.

A run is chosen by VALV_LISTING_SEED, which is printed; without it, by a constant.
"""

import concurrent.futures
import os
import random
import urllib.parse
import xml.etree.ElementTree

import pytest

from rawhttp import request

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
PIECES = [b"a", b"b", b"/", b"//", b"a/", b".", b"-", b" ", b"+", b"%", b"&", b"<", b"\x01", b"\x1f", b"\x7f", b"\xff",
          b"\xc3", "ü".encode(), "😀".encode(), b"zz", b"~"]  # fmt: skip
SEED = int(os.environ.get("VALV_LISTING_SEED", "3"))


def random_key(chance):
    return b"".join(chance.choices(PIECES, k=chance.randrange(1, 6)))


class Model:
    """What was written: for each key its versions, the newest first, as (version id, is a delete marker)."""

    def __init__(self):
        self.keys: dict[bytes, list[tuple[str, bool]]] = {}

    def live(self):
        return sorted(key for key, versions in self.keys.items() if versions and not versions[0][1])

    def all(self):
        return sorted(self.keys)


def folded(keys, prefix, delimiter, after):
    """What S3's documentation says, directly: fold at the delimiter, in order, without what is not after the marker."""
    out = []
    for key in keys:
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        item = ("prefix", key[: cut + len(delimiter)]) if cut >= 0 else ("key", key)
        if item[1] > after and (not out or out[-1] != item):
            out.append(item)
    return out


@pytest.fixture(scope="module")
def filled(shared):
    print(f"VALV_LISTING_SEED={SEED}")
    chance = random.Random(SEED)
    s3 = shared.s3()
    s3.create_bucket(Bucket="random")
    model = Model()
    keys = sorted({random_key(chance) for _ in range(160)})

    def write(key, delete):
        response = request(shared, "DELETE" if delete else "PUT", b"/random/" + key, body=b"" if delete else b"x")
        assert response.status in (200, 204), (key, response)
        return key, response.headers.get("x-amz-version-id", "null"), delete

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        # Null versions first, then a few rounds under versioning; in a round each key is written once.
        for round_ in range(4):
            chosen = [(key, round_ > 0 and chance.random() < 0.4) for key in keys if chance.random() < 0.55]
            for key, version, delete in pool.map(lambda job: write(*job), chosen):
                model.keys.setdefault(key, []).insert(0, (version, delete))
            if round_ == 0:
                s3.put_bucket_versioning(Bucket="random", VersioningConfiguration={"Status": "Enabled"})
    assert len(model.live()) > 50 and len(model.all()) > len(model.live())
    return model


def listing(shared, parameters):
    """One page: its entries in document order as (kind, bytes, element), and the document."""
    query = [("encoding-type", "url"), *((name, value) for name, value in parameters.items() if value is not None)]
    response = request(shared, "GET", "/random", query=query)
    assert response.status == 200, (parameters, response)
    root = xml.etree.ElementTree.fromstring(response.body)
    entries = []
    for element in root:
        tag = element.tag.removeprefix(NAMESPACE)
        if tag in ("Contents", "Version", "DeleteMarker"):
            entries.append(("key", decoded(element, "Key"), element))
        elif tag == "CommonPrefixes":
            entries.append(("prefix", decoded(element, "Prefix"), element))
    return entries, root


def text(element, name):
    return element.findtext(NAMESPACE + name)


def decoded(element, name):
    value = text(element, name)
    return None if value is None else urllib.parse.unquote_to_bytes(value)


def queries(model, count, salt):
    chance = random.Random(SEED * 1000 + salt)
    everything = model.all()
    for _ in range(count):
        some = chance.choice(everything)
        prefix = chance.choice([b"", b"", b"a", b"/", b"\xff", b"\x01", some[: chance.randrange(len(some) + 1)]])
        delimiter = chance.choice([b"", b"/", b"/", b"//", b"a/", "ü".encode(), b"\xff", b"\x01", b"zz"])
        marker = chance.choice([b"", b"", some, some + b"\x00", some[:-1] + b"\xff", b"a/"])
        yield prefix, delimiter, marker, chance.choice([1, 2, 3, 7, 1000])


def pages(shared, parameters, following, size):
    """Every page of a listing, each checked to be full if it says that there is more. Long ones in short pages are cut."""
    out, count = [], 0
    while True:
        entries, root = listing(shared, parameters)
        assert len(entries) <= size and text(root, "MaxKeys") == str(size)
        # A page's entries are in order, and its common prefixes are: together they are what the model says.
        out += sorted(entries, key=lambda entry: entry[1]) if parameters.get("versions") is None else entries
        count += 1
        if text(root, "IsTruncated") == "false":
            return out, False
        assert len(entries) == size
        if count == 12:
            return out, True
        following(parameters, root, entries)


def assert_same(got, wanted, was_cut, query):
    got = [entry[:2] for entry in got]
    assert got == (wanted[: len(got)] if was_cut else wanted), query


def test_list_objects_v2_agrees_with_a_sorted_map(shared, filled):
    def following(parameters, root, _):
        parameters["continuation-token"] = text(root, "NextContinuationToken")

    for query in queries(filled, 60, 1):
        prefix, delimiter, marker, size = query
        parameters = {
            "list-type": "2",
            "prefix": prefix or None,
            "delimiter": delimiter or None,
            "start-after": marker or None,
            "max-keys": str(size),
        }
        got, was_cut = pages(shared, parameters, following, size)
        assert_same(got, folded(filled.live(), prefix, delimiter, marker), was_cut, query)


def test_list_objects_v1_agrees_with_a_sorted_map(shared, filled):
    def following(parameters, root, entries):
        # NextMarker stands there only with a delimiter; without one, the last key is the marker.
        last = max(entry[1] for entry in entries)
        marker = decoded(root, "NextMarker")
        assert marker == (last if parameters["delimiter"] else None)
        parameters["marker"] = last

    for query in queries(filled, 60, 2):
        prefix, delimiter, marker, size = query
        parameters = {
            "prefix": prefix or None,
            "delimiter": delimiter or None,
            "marker": marker or None,
            "max-keys": str(size),
        }
        got, was_cut = pages(shared, parameters, following, size)
        assert_same(got, folded(filled.live(), prefix, delimiter, marker), was_cut, query)


def test_list_object_versions_agrees_with_a_sorted_map(shared, filled):
    def following(parameters, root, _):
        parameters["key-marker"] = decoded(root, "NextKeyMarker")
        parameters["version-id-marker"] = text(root, "NextVersionIdMarker")

    for query in queries(filled, 60, 3):
        prefix, delimiter, marker, size = query
        parameters = {
            "versions": "",
            "prefix": prefix or None,
            "delimiter": delimiter or None,
            "key-marker": marker or None,
            "max-keys": str(size),
        }
        got, was_cut = pages(shared, parameters, following, size)
        wanted_keys, wanted_prefixes = [], []
        for kind, name in folded(filled.all(), prefix, delimiter, marker):
            if kind == "prefix":
                wanted_prefixes.append(name)
            else:
                wanted_keys += [
                    (name, version, is_marker, index == 0) for index, (version, is_marker) in enumerate(filled.keys[name])
                ]
        got_prefixes = [name for kind, name, _ in got if kind == "prefix"]
        got_keys = [
            (name, text(element, "VersionId"), element.tag.endswith("DeleteMarker"), text(element, "IsLatest") == "true")
            for kind, name, element in got
            if kind == "key"
        ]
        if was_cut:
            wanted_keys, wanted_prefixes = wanted_keys[: len(got_keys)], wanted_prefixes[: len(got_prefixes)]
        assert got_keys == wanted_keys, query
        assert got_prefixes == wanted_prefixes, query


def test_a_listing_can_begin_after_any_version(shared, filled):
    """key-marker and version-id-marker together name the last version that a client has seen."""
    chance = random.Random(SEED + 4)
    everything = [(key, version) for key in filled.all() for version, _ in filled.keys[key]]
    for _ in range(15):
        at = chance.randrange(len(everything))
        key, version = everything[at]
        parameters = {"versions": "", "key-marker": key, "version-id-marker": version, "max-keys": "20"}
        entries, _ = listing(shared, parameters)
        got = [(name, text(element, "VersionId")) for _, name, element in entries]
        assert got == everything[at + 1 : at + 21], (key, version)
