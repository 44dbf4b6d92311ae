"""Hostile input over HTTP: paths, names, filters, bodies. Each is refused with a typed error; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_server import Answer
from tests.support.mill_server import SCHEDULE, MillServer, mill_server
from tests.support.servers import RedisServer


@pytest.fixture(scope="module")
def mill(server: RedisServer, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    home = tmp_path_factory.mktemp("mill")
    with mill_server(server, bundle, home) as found:
        (home / "secret.txt").write_text("a secret of the server")
        (home / "places" / "red" / "way-out").symlink_to(home / "places" / "blue")
        yield found


CLIMBS = (
    "..",
    "../blue/tiny",
    "red/../blue/tiny",
    "red/../../secret.txt",
    "%2e%2e/blue/tiny",
    "red/%2e%2e/blue/tiny",
    "red%2f..%2fblue%2ftiny",
    "red/%252e%252e/blue/tiny",
    "red/..%2fblue/tiny",
    "red/.%2e/blue/tiny",
    "red//tiny",
    "/red/tiny",
    "red/./tiny",
    "red/tiny/",
    "red/.hidden",
    "red/tiny%00",
    "red/tiny%0a",
    "red/tiny%20",
    "red/ti%5cny",
    "red\\..\\blue",
    "red/way-out/tiny",
    "~/tiny",
    "~root/tiny",
    "file:///etc/passwd",
    "file%3a%2f%2f%2fetc%2fpasswd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "memory://space/tiny",
    "s3://bucket/tiny",
    "s3://red/tiny",
    "http://169.254.169.254/latest",
    "red/" + "a" * 300,
    "red/" + "/".join(["a"] * 600),
    "r\u00e9d/tiny",
    "red/tiny\u202e",
    "blue/tiny",
    "blue",
    "red",
    "RED/tiny",
    "",
)


@pytest.mark.parametrize("dataset", CLIMBS)
def test_a_dataset_is_named_by_place_and_name_alone(mill: MillServer, dataset: str) -> None:
    token, build, before = mill.tokens["red-operator"], mill.build.rpartition("/")[2], mill.objects()
    path = "/api/v1/datasets/" + "".join(char if ord(char) < 128 else f"%{ord(char) % 256:02x}" for char in dataset)
    path = path.replace("\\", "%5c")
    for method, rest in (("GET", "/state"), ("GET", f"/builds/{build}/manifest"), ("POST", f"/builds/{build}/promote")):
        assert_refused(mill.web.ask(method, path + rest, token), mill)
    assert mill.objects() == before


@pytest.mark.parametrize(
    "build",
    [
        "..",
        "%2e%2e",
        "0" * 19,
        "0" * 21,
        "0" * 20,
        "g" * 20,
        "A" * 20,
        "0" * 19 + "%00",
        "0" * 19 + "/",
        "*",
        "latest.json",
    ],
)
def test_a_build_is_named_by_its_id_alone(mill: MillServer, build: str) -> None:
    for rest in ("/manifest", "/verdict", "/report", "/samples", "/samples/0/image", "/documents/card"):
        assert_refused(
            mill.web.get(f"/api/v1/datasets/red/tiny/builds/{build}{rest}", mill.tokens["red-operator"]), mill
        )


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os').system('touch sprung')",
        "index > ",
        "index",
        "1 == 1",
        "nothing > 1",
        "index in (",
        "index > 1 or",
        "class == cat",
        "class > 5",
        "index > 'a'",
        "(" * 60 + "index > 1" + ")" * 60,
        "not " * 60 + "index > 1",
        "index in (" + ",".join(["1"] * 3000) + ")",
        "index > 1; drop table samples",
        "index > 1 --",
        "index > 1e999999",
        "index > " + "9" * 400,
        "class == '\\",
        "class == \"' or 1=1",
        "latent is null",
        "\u0000",
    ],
)
def test_a_filter_is_read_by_its_grammar_alone(mill: MillServer, where: str) -> None:
    token = mill.tokens["red-reader"]
    pool = mill.web.http.connection_from_url(mill.web.url)
    headers = {"Authorization": f"Bearer {token}"}
    raw = pool.request("GET", mill.build + "/samples", fields={"where": where}, headers=headers)
    assert_refused(Answer(raw.status, dict(raw.headers), raw.data), mill)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e3",
        "limit=" + "9" * 50,
        "limit=many",
        "after=x",
        "after=-1.0",
        "after=1.2.3",
        "after=99999999999.1",
        "after=" + "1" * 300,
        "after=\u0661.\u0661",
        "where=" + "a" * 5000,
    ],
)
def test_pages_are_bounded(mill: MillServer, query: str) -> None:
    path = mill.build + "/samples?" + "".join(char if ord(char) < 128 else f"%{ord(char) % 256:02x}" for char in query)
    assert_refused(mill.web.get(path, mill.tokens["red-reader"]), mill)


@pytest.mark.parametrize("index", ["-1", "60", "1.5", "x", "9" * 40, "0x1", "%00", "1e2", "NaN", "true"])
def test_a_sample_is_one_of_the_build(mill: MillServer, index: str) -> None:
    for rest in ("", "/image"):
        assert_refused(mill.web.get(f"{mill.build}/samples/{index}{rest}", mill.tokens["red-reader"]), mill)


BUNDLE_OF_NOBODY = "sha256:" + "0" * 64
WRONG_FIELDS: list[dict[str, Any]] = [
    {"destination": "/etc"},
    {"destination": "../blue"},
    {"destination": "red/../blue"},
    {"destination": "blue"},
    {"destination": "red/way-out"},
    {"destination": "file:///tmp/x"},
    {"destination": "memory://x"},
    {"destination": "s3://bucket/x"},
    {"destination": "s3://"},
    {"destination": "https://evil.example/"},
    {"destination": "~"},
    {"destination": ""},
    {"destination": "red/" + "a" * 2000},
    {"destination": "red/\u0000"},
    {"destination": 5},
    {"destination": ["red"]},
    {"bundle": "/etc/passwd"},
    {"bundle": "digits.bundle"},
    {"bundle": "s3://bucket/bundle"},
    {"bundle": "https://evil.example/bundle"},
    {"bundle": "file:///etc"},
    {"bundle": "sha256:../../keys"},
    {"bundle": "sha256:" + "0" * 63},
    {"bundle": "SHA256:" + "0" * 64},
    {"bundle": BUNDLE_OF_NOBODY},
    {"bundle": None},
    {"bundle": None, "channel": "blue-line"},
    {"bundle": None, "channel": "../keys"},
    {"bundle": None, "channel": "no-line"},
    {"channel": "red-line"},
    {"name": "../x"},
    {"name": "a/b"},
    {"name": ""},
    {"name": "a" * 100},
    {"name": "<script>"},
    {"name": "CON\u0000"},
    {"tenant": "../blue"},
    {"count": 0},
    {"count": -1},
    {"count": 10**18},
    {"count": 1.5},
    {"count": True},
    {"count": "60"},
    {"count": None},
    {"counts": {"mouse": 1}, "count": None},
    {"counts": {"cat": 1}},
    {"seed": -1},
    {"seed": 2**63},
    {"seed": "1"},
    {"shard_size": 0},
    {"shard_size": 10**6},
    {"batch": 10**9},
    {"dtype": "float8"},
    {"temperature": 0},
    {"temperature": 1e300},
    {"max_attempts": 10**9},
    {"priority": 101},
    {"priority": 1.0},
    {"density_floor": 2},
    {"label_floor": 0.5},
    {"image": "gif"},
    {"image": {"format": "png", "level": 99}},
    {"image": "/etc/passwd"},
    {"draw": {"mode": "around", "image": "/etc/passwd", "distance": 0.1}},
    {"draw": {"mode": "around", "image": "file:///etc/passwd", "distance": 0.1}},
    {"draw": {"mode": "around", "image": "../../secret.txt", "distance": 0.1}},
    {"draw": {"mode": "around", "image": "!" * 100, "distance": 0.1}},
    {"draw": {"mode": "around", "distance": 0.1}},
    {"draw": {"mode": "around", "code": [1e9] * 4, "distance": 0.1}},
    {"draw": {"mode": "around", "code": [0.0] * 5, "distance": 0.1}},
    {"draw": {"mode": "around", "code": [0.0] * 70000, "distance": 0.1}},
    {"draw": {"mode": "around", "reference": 10**9, "distance": 0.1}, "count": None, "counts": {"cat": 1}},
    {"draw": {"mode": "between", "start": {"image": "/etc/passwd"}, "end": {"reference": 0}}},
    {"draw": {"mode": "cluster", "cluster": 10**6}},
    {"draw": {"mode": "exec", "code": "import os"}},
    {"draw": "distribution; rm -rf /"},
    {"published": "tomorrow"},
    {"published": "0000-00-00"},
    {"license": "\u0000"},
    {"recipe_version": 3},
    {"revision": -1},
    {"colour": "red"},
    {"__class__": "os"},
    {"recipe": {}},
    {"recipe": {"bundle": BUNDLE_OF_NOBODY, "counts": [1]}, "order": {"destination": "red", "name": "x"}},
]


@pytest.mark.parametrize("fields", WRONG_FIELDS, ids=lambda fields: json.dumps(fields)[:60])
def test_a_draft_names_nothing_but_what_is_the_tenants(mill: MillServer, fields: dict[str, Any]) -> None:
    before, token = mill.objects(), mill.tokens["red-operator"]
    draft = mill.body("POST", "/api/v1/jobs") | fields
    assert_refused(mill.web.post("/api/v1/jobs", token, draft), mill)
    assert_refused(mill.web.post("/api/v1/preview", token, {"spec": draft, "count": 1}), mill)
    assert mill.objects() == before


JOB = SCHEDULE["job"]
WRONG_SCHEDULES: list[dict[str, Any]] = [
    {"job": JOB | {"destination": "/etc"}},
    {"job": JOB | {"destination": "blue"}},
    {"job": JOB | {"destination": "red/{date:%Y}/../../blue"}},
    {"job": JOB | {"destination": "red/{date:..}/x"}},
    {"job": JOB | {"destination": "{schedule}"}},
    {"job": JOB | {"destination": "{date}/red"}},
    {"job": JOB | {"destination": "red{date}"}},
    {"job": JOB | {"destination": "s3://other/{date}"}},
    {"job": JOB | {"destination": ["red"]}},
    {"job": JOB | {"channel": "blue-line"}},
    {"job": JOB | {"channel": "{schedule}"}},
    {"job": JOB | {"name": "../x"}},
    {"job": JOB | {"tenant": "blue"}},
    {"job": {"bundle": "/etc/passwd", "count": 1, "destination": "red"}},
    {"job": {"bundle": "{date}", "count": 1, "destination": "red"}},
    {"job": {"bundle": BUNDLE_OF_NOBODY, "count": 1, "destination": "red"}},
    {"job": JOB | {"draw": {"mode": "around", "image": "/etc/passwd", "distance": 0.1}}},
    {"job": JOB | {"draw": {"mode": "between", "start": {"image": "/etc/passwd"}, "end": {"reference": 0}}}},
    {"job": []},
    {"job": None},
    {"cron": "* * *"},
    {"cron": "0 0 31 2 *"},
    {"cron": "x" * 500},
    {"timezone": "../../etc/passwd"},
    {"timezone": "Mars/Base"},
    {"gates": {"reference": {"source": "/etc"}}},
    {"gates": {"reference": {"source": "digits", "test": "/etc"}}},
    {"gates": {"reference": {"source": "s3://other/images"}}},
    {"notifications": {"webhooks": [{"url": "http://169.254.169.254/", "on": ["failed"]}]}},
    {"name": "other"},
    {"deadline": "never"},
    {"tenants": "blue"},
]


@pytest.mark.parametrize("fields", WRONG_SCHEDULES, ids=lambda fields: json.dumps(fields)[:60])
def test_a_schedule_names_nothing_but_what_is_the_tenants(mill: MillServer, fields: dict[str, Any]) -> None:
    before = mill.objects()
    assert_refused(mill.web.ask("PUT", "/api/v1/schedules/fresh", mill.tokens["red-operator"], SCHEDULE | fields), mill)
    assert mill.objects() == before


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "text": b'"x"',
    "null": b"null",
    "a duplicate key": b'{"name": "a", "name": "b"}',
    "NaN": b'{"count": NaN}',
    "infinity": b'{"temperature": 1e999}',
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "no UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "deep": b'{"draw":' * 5000 + b"1" + b"}" * 5000,
    "deep list": b"[" * 100_000,
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "YAML": b"name: !!python/object/apply:os.system ['touch sprung']",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/preview", "/api/v1/schedules/fresh"])
def test_a_body_is_strict_json(mill: MillServer, path: str, body: bytes) -> None:
    before, method = mill.objects(), "PUT" if "schedules" in path else "POST"
    headers = {"Content-Type": "application/json"}
    assert_refused(mill.web.ask(method, path, mill.tokens["red-operator"], body=body, headers=headers), mill)
    assert mill.objects() == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/yaml", ""])
def test_a_body_of_another_kind_is_refused(mill: MillServer, kind: str) -> None:
    body = json.dumps(mill.body("POST", "/api/v1/jobs")).encode()
    assert_refused(
        mill.web.post("/api/v1/jobs", mill.tokens["red-operator"], body=body, headers={"Content-Type": kind}), mill
    )


CHANGES: list[dict[str, Any]] = [
    {"destination": "/etc"},
    {"destination": "blue"},
    {"bundle": BUNDLE_OF_NOBODY},
    {"tenant": "blue"},
    {"colour": 1},
    {"counts": "all"},
    {"count": "many"},
    {"count": 1, "counts": [1, 1, 1]},
    {"recipe_version": 9},
    {"name": ".."},
]


@pytest.mark.parametrize("changes", CHANGES, ids=json.dumps)
def test_a_clone_stays_with_its_tenant(mill: MillServer, changes: dict[str, Any]) -> None:
    before = mill.objects()
    assert_refused(mill.web.post(f"/api/v1/jobs/{mill.status.job}/clone", mill.tokens["red-operator"], changes), mill)
    assert mill.objects() == before


@pytest.mark.parametrize(
    "job", ["..", "*", "tiny-*", "%2e%2e", "a" * 5000, "latentmill:queries", "%00", "a b", "tiny-000000000000"]
)
def test_a_job_is_named_by_its_id_alone(mill: MillServer, job: str) -> None:
    for method, rest in (("GET", ""), ("GET", "/pace"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/pause")):
        path = "/api/v1/jobs/" + job.replace(" ", "%20") + rest
        assert_refused(mill.web.ask(method, path, mill.tokens["red-operator"]), mill)


BUILDS = (
    "",
    "/",
    "x",
    "/etc/builds/" + "0" * 20,
    "../x/builds/" + "0" * 20,
    "blue/tiny/builds/" + "0" * 20,
    "s3://x/y",
    5,
)


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_that_is_resumed_is_the_tenants(mill: MillServer, build: Any) -> None:
    before = mill.objects()
    assert_refused(mill.web.post("/api/v1/jobs/resume", mill.tokens["red-operator"], {"build": build}), mill)
    assert mill.objects() == before


def test_there_are_more_than_two_hundred_hostile_inputs() -> None:
    listed = (CLIMBS, WRONG_FIELDS, WRONG_SCHEDULES, CHANGES)
    assert sum(map(len, listed)) + 3 * len(BODIES) > 200


def assert_refused(answer: Answer, mill: MillServer) -> None:
    """The answer is a typed refusal, without a traceback or a path of the server."""
    assert 400 <= answer.status < 500, (answer.status, answer.body)
    text = answer.body.decode()
    for secret in ("Traceback", "site-packages", str(mill.service.home), "a secret of the server", "root:"):
        assert secret not in text, text
    assert_words(json.loads(text))
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        facts = answer.document
        assert facts["field"]
        assert facts["expected"]
        assert facts["status"] == answer.status
    else:
        assert answer.status in (400, 404, 405, 421), (answer.status, text)


def assert_words(problem: dict[str, Any]) -> None:
    """A person can read it: no pattern, and fields as they are spelt in what was sent."""
    for part in ("title", "field", "expected", "hint"):
        for machine in ("^", "[0-9", "[a-z", "[A-Z", "\\x", "(?:", "{0,", "discriminator", "Unable to", "Input "):
            assert machine not in problem[part], problem
    assert not problem["field"].startswith(("draft", "spec.draft", "body.")), problem
    assert problem["detail"].startswith(f"{problem['field']}: expected {problem['expected']}, got ")
