"""The page, in a real browser: Debian's packages chromium and chromium-driver."""

import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By

from consumer.ingest import metrics as consumer_metrics
from process.health import Health
from process.http import endpoint
from process.metrics import Metrics
from serving.loop import metrics as serving_metrics
from serving.redis.contract import Recommendations
from serving.redis.store import Store
from serving.settings import ServingSettings
from streamgcn.page.server import PageEnded, serve
from streamgcn.services.ports import free_port
from streamgcn.up.up import _three_free
from tests.graphs import append, store
from tests.services import ROOT, wait_for
from tests.serving.test_redis_rights import LIST, as_user
from tests.threads import running
from tests.trainer.test_snapshots import NAMES, filled
from trainer.lifecycle.folder import Folder
from trainer.lifecycle.lease import Lease
from trainer.lifecycle.running_training import RunningTraining

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> \x1b[31m</script>"


@contextmanager
def page(settings: ServingSettings, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a page that is served."""
    port = free_port()
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    with running(lambda stop: serve(settings, host, port, stop)) as ended:
        wait_for("the page", lambda: ended.done() or answers(url))
        yield url


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    paths = [shutil.which("chromium"), shutil.which("chromedriver")]
    if not all(paths):
        pytest.skip("chromium or chromedriver is absent: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(paths[0])
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(each)
    options.add_argument("--window-size=1200,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, webdriver.ChromeService(str(paths[1])))
    try:
        yield made
    finally:
        made.quit()


def settings_of(folder: Path, redis_url: str, **more: object) -> ServingSettings:
    given = {
        "kafka_bootstrap_servers": f"127.0.0.1:{free_port()}", "kafka_topic": "t",
        "redis_url": redis_url, "redis_prefix": folder.name, "edge_store": str(folder / "edges"),
        "model_store": str(folder / "models"),
    }  # fmt: skip
    return ServingSettings.model_validate(given | more)


def text(browser: webdriver.Chrome, css: str) -> str:
    """In one call, as the page may draw anew between two."""
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(browser.execute_script(script, css))


def console(browser: webdriver.Chrome) -> list[str]:
    """What the browser's console has shown: blocked scripts, failed requests, exceptions."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries]


def ask(browser: webdriver.Chrome, name: str, kind: str) -> None:
    field = browser.find_element(By.ID, "id")
    browser.execute_script("arguments[0].value = arguments[1]", field, name)
    browser.find_element(By.CSS_SELECTOR, f"button[value={kind}]").click()


def test_the_page_updates_finds_a_user_and_an_item_and_shows_a_hostile_id_as_text(
    browser: webdriver.Chrome, redis_url: str, tmp_path: Path
) -> None:
    rows = [("u1", "i1", 1.0, 1_790_000_000_000), ("u1", HOSTILE, 2.5, 1_790_000_001_000)]
    edges = store(tmp_path / "edges", [*rows, (HOSTILE, "i1")])
    filled(tmp_path / "models", *NAMES[:2])
    settings = settings_of(tmp_path, redis_url)
    lists = Store(settings.redis_url, settings.redis_prefix)
    found = Recommendations([HOSTILE, "i7"], [0.75, 0.5], ["i1", HOSTILE], "v", "live", 1, 2)
    lists.put_users(["u1", HOSTILE], [msgspec.json.encode(found)] * 2)
    lists.put_neighbors(["i1"], [msgspec.json.encode(found)])
    lists.close()
    with page(settings) as url:
        browser.get(url)
        wait_for("the rows", lambda: text(browser, "#rows .now") == "3")
        append(edges, [("u2", "i1"), ("u2", "i2")], 3)
        wait_for("the new rows", lambda: text(browser, "#rows .now") == "5")
        wait_for("the models", lambda: NAMES[1] in text(browser, "#versions"))
        assert "live" in text(browser, "#versions tr:nth-child(1) td")
        ask(browser, "u1", "user")
        wait_for("the user", lambda: "List of u1" in text(browser, "#found"))
        shown = text(browser, "#found")
        assert "<img src=x onerror=" in shown
        assert "0.75" in shown
        assert "2.5" in shown
        ask(browser, HOSTILE, "user")
        wait_for("the hostile user", lambda: "\\x1b[31m</script>" in text(browser, "#found h2"))
        ask(browser, "i1", "item")
        wait_for("the item", lambda: "Neighbours of i1" in text(browser, "#found"))
        ask(browser, "nobody", "user")
        wait_for("nobody", lambda: "There is no list yet." in text(browser, "#found"))
        assert browser.title == "StreamGCN"
        assert browser.find_elements(By.TAG_NAME, "img") == []
        assert console(browser) == []
        browser.get("about:blank")


def test_the_page_shows_the_stages_of_a_running_training(
    browser: webdriver.Chrome, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    models = Folder(tmp_path / "models")
    lease, current = Lease(models), RunningTraining(models)
    assert lease.take()
    with page(settings_of(tmp_path, redis_url)) as url, current.of(7):
        browser.get(url)
        for stage in ("choosing", "training"):
            current._next = 0.0
            current.note(stage, 3, 9, 0.25)
            wait_for(stage, lambda s=stage: f"{s} (step 3 of 9)" in text(browser, "#stages"))  # type: ignore[misc]
        assert text(browser, "#stages").startswith("choosing\n")
        wait_for("the loss", lambda: "0.25" in text(browser, "#loss"))
        assert console(browser) == []
        browser.get("about:blank")
    lease.release()


def test_the_page_works_and_says_what_is_missing_where_nothing_is_there(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, f"redis://127.0.0.1:{free_port()}")
    with page(settings) as url:
        browser.get(url)
        for said in (
            "edge store: there is no edge store at", "Redis: ", "Kafka: ",
            "models: no model was trained yet",
        ):  # fmt: skip
            wait_for(said, lambda s=said: s in text(browser, "#troubles"))  # type: ignore[misc]
        wait_for("the trainer", lambda: "not running" in text(browser, "#trainer"))
        ask(browser, "u1", "user")
        wait_for("the answer", lambda: "there is no edge store" in text(browser, "#found"))
        assert console(browser) == []
        browser.get("about:blank")


def test_the_page_plots_the_figures_of_the_processes_and_says_what_each_process_lacks(
    browser: webdriver.Chrome, redis_url: str, tmp_path: Path
) -> None:
    first = _three_free()
    edges = store(tmp_path / "edges", [("u1", "i1")])
    consumer, serving = (
        Metrics("consumer", consumer_metrics.METRICS), Metrics("serving", serving_metrics.METRICS)
    )  # fmt: skip
    reads, serves = Health(), Health()
    for health in (reads, serves):
        health.alive()
    consumer.take({"lag": 41})
    serving.take({"lag": 17})

    def drawn(css: str) -> bool:
        """Whether each line of a plot has points."""
        script = "return [...document.querySelectorAll(arguments[0])].map(l => l.outerHTML)"
        lines = browser.execute_script(script, f"{css} polyline")
        return bool(lines) and all(re.search(r'points="[\d.]+,[\d.]+', line) for line in lines)

    with (
        endpoint("127.0.0.1", first, consumer.registry, reads),
        endpoint("127.0.0.1", first + 2, serving.registry, serves),
        page(settings_of(tmp_path, redis_url, metrics_port=first)) as url,
    ):
        browser.get(url)
        wait_for("the lag", lambda: text(browser, "#lag .now") == "41 / 17")
        serving.observe("freshness", [0.2] * 10)
        append(edges, [("u2", "i1")] * 100, 1)
        for plot in ("#lag", "#fresh", "#rate"):
            wait_for(f"the points of {plot}", lambda p=plot: drawn(p))  # type: ignore[misc]
        reads.needs(Kafka="Kafka at far:9092 does not answer")
        serves.needs(model="no model is live yet", Redis="Redis is <b>full</b>")
        for said in (
            "consumer: Kafka at far:9092 does not answer",
            "serving: no model is live yet; Redis is <b>full</b>",
            "trainer: the process does not answer at",
        ):
            wait_for(said, lambda s=said: s in text(browser, "#troubles"))  # type: ignore[misc]
        assert text(browser, "#lag .now") == "41 / 17"
        reads.needs(Kafka="")
        wait_for("Kafka again", lambda: "consumer: " not in text(browser, "#troubles"))
        assert console(browser) == []
        browser.get("about:blank")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "::1"])
def test_the_page_answers_no_other_host_name_and_allows_no_foreign_script(
    tmp_path: Path, host: str
) -> None:
    settings = settings_of(tmp_path, f"redis://127.0.0.1:{free_port()}")
    with page(settings, host) as url:
        with urllib.request.urlopen(url) as answer:  # noqa: S310
            policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy
        foreign = urllib.request.Request(f"{url}/user?id=u1", headers={"Host": "evil.example"})  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(foreign)  # noqa: S310
        assert refused.value.code == 400
        refused.value.close()


def asked(url: str) -> Any:
    """What the page's server answers, as JSON; of a stream the first message."""
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        return msgspec.json.decode(answer.readline().removeprefix(b"data: "))


def test_the_page_needs_no_other_rights_in_redis_than_the_docs_name(
    redis_url: str, tmp_path: Path
) -> None:
    rule = "+get +hmget"
    assert f"| `page` | `{rule}` |" in (ROOT / "docs" / "security.md").read_text()
    lists = Store(redis_url, tmp_path.name)
    lists.put_users(["u1"], [msgspec.json.encode(LIST)])
    lists.put_neighbors(["i1"], [msgspec.json.encode(LIST)])
    lists.put_model({"version": "v7"})
    lists.close()
    own = settings_of(tmp_path, as_user(redis_url, "page", rule, tmp_path.name))
    with page(own) as url:
        wait_for("the model", lambda: asked(f"{url}/events")["published"] == "v7")
        assert "Redis" not in asked(f"{url}/events")["troubles"]
        for address in ("user?id=u1", "item?id=i1"):
            assert [row[0] for row in asked(f"{url}/{address}")["list"]] == LIST.items
    less = settings_of(tmp_path, as_user(redis_url, "less", "+get", tmp_path.name))
    with page(less) as url:
        said = "Redis does not let its user run HMGET"
        wait_for("the line", lambda: said in asked(f"{url}/events")["troubles"].get("Redis", ""))


def test_a_page_whose_web_server_ends_by_itself_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    settings = settings_of(tmp_path, f"redis://127.0.0.1:{free_port()}")
    stop = threading.Event()
    try:
        with pytest.raises(PageEnded, match="ended by itself"):
            serve(settings, "127.0.0.1", free_port(), stop)
    finally:
        stop.set()
