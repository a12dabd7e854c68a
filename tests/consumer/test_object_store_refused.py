"""An object store that does not let a process in names the setting to mend, at the start."""

import json
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore, StoreError, StoreRefused
from consumer.edge.table import Table
from consumer.edge.tidy import vacuum
from process.settings import SettingsError
from tests.graphs import append, store, stored
from tests.rooms import Rooms
from tests.s3 import S3, s3_server
from tests.services import ROOT

# Seconds in which a command with a wrong setting ends; it is half of it beside no other work.
SOON = 30.0
SECRET = "the-wrong-secret"  # noqa: S105  of a test
KEY = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
ANSWERS = [
    (403, "InvalidAccessKeyId", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (403, "SignatureDoesNotMatch", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (400, "ExpiredToken", "that has not expired"),
    (403, "AccessDenied", "lacks a right"),
    (404, "NoSuchBucket", "make the bucket"),
    (400, "AuthorizationHeaderMalformed", "set AWS_REGION to eu-west-1"),
    (301, "PermanentRedirect", "set AWS_REGION to the region of the bucket"),
]


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Address of a server that answers so to whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Requests are no lines of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without credentials of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", *KEY):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def use(environment: pytest.MonkeyPatch, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        environment.setenv(name, value)


@pytest.mark.parametrize(("status", "code", "mend"), ANSWERS)
def test_an_answer_that_refuses_names_the_setting_and_no_secret(
    status: int, code: str, mend: str, environment: pytest.MonkeyPatch
) -> None:
    body = (
        f"<Error><Code>{code}</Code><Message>It is so.</Message><Region>eu-west-1</Region>"
        "<AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId><StringToSign>what was signed</StringToSign>"
        "</Error>"
    )
    with answering(status, body.encode()) as address:
        use(environment, KEY | {"AWS_ENDPOINT_URL": address})
        with pytest.raises(StoreRefused) as refused:
            EdgeStore("s3://bucket/edges", "t")
    text = str(refused.value)
    assert text.startswith("EDGE_STORE=s3://bucket/edges is refused: ")
    assert mend in text
    assert not re.search(f"AKIA|{SECRET}|signed|\n|\x1b", text)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError")])
def test_an_answer_that_may_be_another_one_later_is_waited_for(
    status: int, code: str, environment: pytest.MonkeyPatch
) -> None:
    body = f"<Error><Code>{code}</Code><Message>Try later.</Message></Error>"
    with answering(status, body.encode()) as address:
        use(environment, KEY | {"AWS_ENDPOINT_URL": address})
        texts = set()
        for _ in range(3):
            with pytest.raises(StoreError) as away:
                EdgeStore("s3://bucket/edges", "t")
            assert not isinstance(away.value, SettingsError)
            texts.add(str(away.value))
    # The same text each time is one line of the log.
    assert texts == {f"edge store s3://bucket/edges: {address} answers {code} (Try later)"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"AWS_ENDPOINT_URL": "localhost:9000", **KEY}, "AWS_ENDPOINT_URL='localhost:9000' is"),
        ({"AWS_ENDPOINT_URL": "http://x", "AWS_ALLOW_HTTP": "false", **KEY}, "AWS_ALLOW_HTTP=true"),
        ({"AWS_ALLOW_HTTP": "perhaps", **KEY}, "has this value"),
        ({"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"}, "no credentials were found"),
    ],
)
def test_a_wrong_variable_is_refused_without_asking_the_object_store(
    settings: dict[str, str], reason: str, environment: pytest.MonkeyPatch
) -> None:
    use(environment, settings)
    with pytest.raises(SettingsError, match=reason) as refused:
        EdgeStore("s3://bucket/edges", "t")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["s3:/bucket/edges", "s3:///edges", "s3a://bucket/edges", "http://host/edges", "s3://b/a%20b",
     "s3://b/a b", "s3://b/ä", "s3://b/a?x=1", "s3://b//a", f"s3://KEY:{SECRET}@b/edges"],
)  # fmt: skip
def test_a_place_that_is_none_is_refused_and_a_secret_in_it_is_hidden(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"EDGE_STORE=.* is refused") as refused:
        EdgeStore.begin(uri, "t")
    assert SECRET not in str(refused.value)


class Identities:
    """A server that asks for keys, and keys for it."""

    def __init__(self, s3: S3) -> None:
        self.s3 = s3
        self.bucket = s3.bucket()

    def key(self, user: str, policy: str) -> dict[str, str]:
        """The environment with the key of a new user who has the rights of a policy."""
        self._iam(Action="CreateUser", UserName=user)
        self._iam(Action="PutUserPolicy", UserName=user, PolicyName="p", PolicyDocument=policy)
        answer = self._iam(Action="CreateAccessKey", UserName=user)
        found = [
            re.search(f"<{name}>(.*?)</{name}>", answer)
            for name in ("AccessKeyId", "SecretAccessKey")
        ]
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        made = {name: str(each[1]) for name, each in zip(names, found, strict=True) if each}
        return self.s3.environment | made

    def ask_for_keys(self) -> None:
        """From now on."""
        self._post(f"{self.s3.address}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})

    def _iam(self, **query: str) -> str:
        scope = "Credential=test/20260101/us-east-1/iam/aws4_request"
        signed = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"}
        return self._post(self.s3.address, urllib.parse.urlencode(query).encode(), signed)

    def _post(self, url: str, data: bytes, headers: dict[str, str]) -> str:
        request = urllib.request.Request(url, data, headers)  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return str(answer.read(), "utf8")


@pytest.fixture
def identities(tmp_path: Path) -> Iterator[Identities]:
    with s3_server(tmp_path) as server:
        yield Identities(server)


def rights(bucket: str, *actions: str) -> str:
    """The policy that the documentation lists for a consumer; or with some of the actions alone."""
    security = (ROOT / "docs" / "security.md").read_text()
    listed = re.search(r"```json\n(.*?)```", security, re.DOTALL)
    assert listed
    policy = json.loads(listed[1].replace("BUCKET", bucket).replace("PATH", "edges"))
    if actions:
        policy["Statement"][0]["Action"] = list(actions)
    else:  # moto asks for this right to the bucket too where several objects go at once
        whole = f"arn:aws:s3:::{bucket}"
        policy["Statement"].append(
            {"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": whole}
        )
    return json.dumps(policy)


def test_the_rights_that_the_documentation_lists_are_enough(
    identities: Identities, environment: pytest.MonkeyPatch
) -> None:
    bucket = identities.bucket
    writer = identities.key("writer", rights(bucket))
    reader = identities.key("reader", rights(bucket, "s3:GetObject"))
    identities.ask_for_keys()
    use(environment, writer)
    uri = f"s3://{bucket}/edges"
    made = store(uri, [("u", "i0"), ("v", "i0")])
    for number in range(1, 15):  # past a checkpoint
        append(made, [("u", f"i{number}")], 1 + number)
    assert made.tidy() == 0
    vacuum(Table(uri), hours=0, full=True)
    assert stored(made).num_rows == 16
    with pytest.raises(StoreRefused, match="AccessDenied"):
        store(f"s3://{bucket}/elsewhere", [("u", "i")])

    use(environment, reader)
    read = EdgeStore(uri, "t")
    assert stored(read).num_rows == read.count() == 16
    assert read.files_with("u", {0: 100})
    with pytest.raises(StoreRefused, match="AccessDenied"):
        append(read, [("u", "late")], 16)


@pytest.mark.parametrize(
    ("room", "wrong", "mend"),
    [
        ("consumer", {"AWS_SECRET_ACCESS_KEY": SECRET}, "SignatureDoesNotMatch"),
        ("consumer", {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"}, "InvalidAccessKeyId"),
        ("consumer", {"EDGE_STORE": "s3://no-such-bucket/edges"}, "make the bucket"),
        ("trainer", {"AWS_SECRET_ACCESS_KEY": SECRET}, "SignatureDoesNotMatch"),
        ("serving", {"AWS_SECRET_ACCESS_KEY": SECRET}, "SignatureDoesNotMatch"),
        ("status", {"AWS_SECRET_ACCESS_KEY": SECRET}, "SignatureDoesNotMatch"),
    ],
)
def test_a_process_that_is_not_let_in_ends_soon_with_one_line_and_2(
    room: str, wrong: dict[str, str], mend: str,
    identities: Identities, embedded: str, redis_url: str, tmp_path: Path,
) -> None:  # fmt: skip
    every = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    settings = identities.key("app", json.dumps({"Version": "2012-10-17", "Statement": [every]}))
    identities.ask_for_keys()
    place = {"EDGE_STORE": f"s3://{identities.bucket}/edges"}
    with Rooms(tmp_path, embedded, redis_url, **(settings | place | wrong)) as rooms:
        began = time.monotonic()
        done = rooms.run(room)
        assert time.monotonic() - began < SOON
    assert done.returncode == 2, done.stdout + done.stderr
    refused = [line for line in done.stderr.splitlines() if "is refused" in line]
    assert len(refused) == 1
    assert refused[0].startswith("streamgcn: EDGE_STORE=")
    assert mend in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_process_without_credentials_ends_soon_where_nothing_answers_that_gives_some(
    s3: S3, embedded: str, redis_url: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {name: value for name, value in s3.environment.items() if name not in KEY} | {
            "AWS_METADATA_ENDPOINT": address,
            "EDGE_STORE": f"s3://{s3.bucket()}/edges",
        }
        with Rooms(tmp_path, embedded, redis_url, **settings) as rooms:
            for name in KEY:
                rooms.env.pop(name, None)
            began = time.monotonic()
            done = rooms.run("consumer")
            assert time.monotonic() - began < SOON
    assert done.returncode == 2
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.stderr
