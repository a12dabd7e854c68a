"""monitoring/: each query of the dashboard and of the alerts, against the processes' /metrics."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from consumer.edge.store import EdgeStore
from streamgcn.services.ports import free_port
from tests.rooms import Rooms
from tests.services import PATIENCE, ROOT, wait_for
from tests.watching import get

MONITORING = ROOT / "monitoring"
GIVEN = {"up"}  # by Prometheus itself


def queries() -> Iterator[str]:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    for group in rules["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for file in (MONITORING / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            yield from (target["expr"] for target in panel["targets"])


def names(query: str) -> set[str]:
    """The metrics that a query asks for; raises ValueError where it is no PromQL."""
    return set(re.findall(r"\b(?:streamgcn|process)_\w+|\bup\b", str(promql_parser.parse(query))))


def on_page(port: int) -> set[str]:
    """All names of series that a process shows."""
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    shown = {sample.name for family in families for sample in family.samples}
    return shown | {family.name for family in families}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """Of the three processes, which show their metrics while they wait for Kafka."""
    found: set[str] = set()
    closed = f"127.0.0.1:{free_port()}"
    folder: Path = tmp_path_factory.mktemp("monitoring")
    with Rooms(folder, closed, f"redis://{closed}") as rooms:
        for room in ("consumer", "trainer", "serving"):
            port = free_port()
            rooms.start(room, STREAMGCN_METRICS_PORT=str(port))
            wait_for(f"the metrics of {room}", lambda r=room: "Metrics are at" in rooms.log(r))  # type: ignore[misc]
            found |= on_page(port)
        yield found


def test_each_query_asks_for_metrics_that_a_process_shows(shown: set[str]) -> None:
    asked = {query: names(query) for query in queries()}
    assert len(asked) > 20
    for query, metrics in asked.items():
        assert metrics, query
        assert metrics <= shown | GIVEN, query


def matchers(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The metrics of a query that are asked for by labels, and these."""
    for name, labels in re.findall(r"(\w+)\{([^}]+)\}", str(promql_parser.parse(query))):
        found = re.findall(r'(\w+)="([^"]*)"', labels)
        assert ",".join(f'{label}="{value}"' for label, value in found) == labels
        yield name, dict(found)


def test_each_label_that_a_query_asks_for_is_one_that_a_process_without_a_model_shows(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    jobs = {config["job_name"] for config in scraped}
    asked = [found for query in queries() for found in matchers(query)]
    assert len(asked) > 2
    with Rooms(tmp_path, embedded, redis_url) as rooms:
        EdgeStore.begin(rooms.env["EDGE_STORE"], rooms.settings.kafka_topic)
        ports = {room: free_port() for room in ("trainer", "serving")}
        for room, port in ports.items():
            rooms.start(room, STREAMGCN_METRICS_PORT=str(port))

        def all_shown() -> bool:
            """Once serving has begun, and has no model."""
            pages = [get(port, "/metrics")[1] for port in ports.values()]
            samples = [
                sample
                for page in pages
                for family in text_string_to_metric_families(page)
                for sample in family.samples
            ]
            return all(
                any(s.name == name and labels.items() <= s.labels.items() for s in samples)
                for name, labels in of_processes
            )

        of_prometheus = [labels for _, labels in asked if "job" in labels]
        of_processes = [found for found in asked if "job" not in found[1]]
        assert all(labels.keys() == {"job"} and labels["job"] in jobs for labels in of_prometheus)
        wait_for(f"samples of {of_processes}", all_shown)


def joined_by_all_labels(part: promql_parser.Expr) -> bool:
    """Whether series of two names are joined, in which case nothing says by which labels.

    Those of two processes never have all labels alike, so there would be no answer.
    """
    if isinstance(part, promql_parser.ParenExpr):
        return joined_by_all_labels(part.expr)
    if not isinstance(part, promql_parser.BinaryExpr):
        return False
    sides = [side for side in (part.lhs, part.rhs) if names(str(side))]
    wrong = len(sides) == 2 and str(part.op) != "or" and not part.modifier
    return (wrong and names(str(part.lhs)) != names(str(part.rhs))) or any(
        map(joined_by_all_labels, sides)
    )


def test_no_query_joins_series_of_two_processes_that_have_not_all_labels_alike() -> None:
    assert joined_by_all_labels(promql_parser.parse("rate(process_a[1m]) + process_b > 0"))
    wrong = [query for query in queries() if joined_by_all_labels(promql_parser.parse(query))]
    assert wrong == []


def test_the_metrics_that_the_documentation_names_are_shown(shown: set[str]) -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    named = set(re.findall(r"`(streamgcn_\w+)`", text))
    assert len(named) > 10
    assert named <= shown


def test_compose_mounts_files_that_are_there_and_scrapes_the_port_of_the_processes() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        assert re.search(r":v?\d+\.\d+\.\d+$", services[name]["image"])
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        for volume in services[name]["volumes"]:
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    [targets] = [config["targets"] for config in scraped[0]["static_configs"]]
    port = services["consumer"]["environment"]["STREAMGCN_METRICS_PORT"]
    assert targets == [f"{room}:{port}" for room in ("consumer", "trainer", "serving")]
