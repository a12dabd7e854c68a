from pathlib import Path

import pytest

from process.settings import SettingsError, variables
from serving.settings import ServingSettings
from trainer.model.hyperparameters import SETTINGS, Hyperparameters
from trainer.model.model_file import written
from trainer.settings import REMOVED


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables(ServingSettings):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def test_the_defaults_are_those_of_a_local_installation() -> None:
    settings = ServingSettings.load()
    assert settings.kafka_bootstrap_servers == "localhost:9092"
    assert settings.top_k == 50
    assert settings.min_edges == 1000


def test_settings_are_read_from_their_environment_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_TOPIC", "clicks")
    monkeypatch.setenv("STREAMGCN_TOP_K", "7")
    settings = ServingSettings.load()
    assert (settings.kafka_topic, settings.top_k) == ("clicks", 7)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("STREAMGCN_TOP_K", "many", "valid integer"),
        ("STREAMGCN_TOP_K", "0", "greater than or equal to 1"),
        ("STREAMGCN_MODEL", "svd", "'lightgcn' or 'gcn'"),
        ("STREAMGCN_DEVICE", "tpu", "auto|cpu|cuda"),
        ("REDIS_URL", "localhost", "redis"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "'PLAINTEXT', 'SSL'"),
    ],
)
def test_a_wrong_value_is_refused_by_name_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        ServingSettings.load()
    assert f"{name}='{value}'" in str(refused.value)
    assert allowed in str(refused.value)


def test_a_misspelt_setting_is_refused_with_the_right_spelling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMGCN_TOPK", "7")
    with pytest.raises(SettingsError, match="did you mean STREAMGCN_TOP_K"):
        ServingSettings.load()


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@host/0")
    assert "hunter2" not in repr(ServingSettings.load())


@pytest.mark.parametrize(
    "url",
    ["http://:hunter2@host", "http://u:hun/ter2@host", "u:hunter2@host", "h?password=hunter2"],
)
def test_a_refused_url_does_not_show_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match="REDIS_URL=<hidden> is refused") as refused:
        ServingSettings.load()
    assert "ter2" not in str(refused.value)


def test_a_loss_that_cannot_be_blended_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGCN_LOSS", "mse")
    with pytest.raises(SettingsError, match="cannot be blended; set STREAMGCN_MODEL"):
        ServingSettings.load()
    monkeypatch.setenv("STREAMGCN_MODEL", "gcn")
    assert ServingSettings.load().hyperparameters().objective == "mse"


def with_file(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **variables: str
) -> Hyperparameters:
    (tmp_path / "model.toml").write_text(text)
    monkeypatch.setenv("STREAMGCN_MODEL_FILE", str(tmp_path / "model.toml"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return ServingSettings.load().hyperparameters()


def test_numbers_of_the_model_are_read_from_a_file_beside_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "vectors = 512\nneighbors_weight = 2\nlearned_weight = 0\n"
    made = with_file(text, tmp_path, monkeypatch, STREAMGCN_EPOCHS="7")
    assert (made.vectors, made.neighbors_weight, made.learned_weight, made.epochs) == (512, 2, 0, 7)
    assert made.low_pass_weight is None
    assert not {"vectors", "neighbors_weight", "learned_power"} & made.missing()


def test_what_was_chosen_is_written_as_a_file_that_leaves_nothing_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chosen in (
        Hyperparameters().usual(),
        Hyperparameters(neighbors_weight=0.0, layers=2).without_time().usual(),
    ):
        read = with_file(written(chosen), tmp_path, monkeypatch)
        assert read.missing() == set()
        assert {n: getattr(read, n) for part in read.parts for n in part.names} == {
            n: getattr(chosen, n) for part in chosen.parts for n in part.names
        }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vectors = ", "cannot be read"),
        ("vectors = true", "vectors = True in .*model.toml is refused: it must be a number"),
        ("vectors = 1.5", "it must be a whole number"),
        ("temperature = 0", "temperature = 0 in .*: it must be above 0"),
        ("recency = nan", "it must be a number"),
        ("edge_drop = 1.0", "it must be below 1"),
        ("layers = 99", "it must be at most 8"),
        ("neighbours_weight = 1", "did you mean neighbors_weight"),
        ("epochs = 3", "set STREAMGCN_EPOCHS instead"),
        ("dampening = 1", "contradicts STREAMGCN_EDGE_WEIGHT"),
        (
            "transitions_weight = 0\nneighbors_weight = 0\nlow_pass_weight = 0\nlearned_weight = 0",
            "all weights in .* are 0",
        ),
    ],
)
def test_a_file_of_the_model_is_refused_by_name_value_and_what_is_allowed(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=said):
        with_file(text, tmp_path, monkeypatch, STREAMGCN_EDGE_WEIGHT="last")


def test_a_file_of_the_model_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGCN_MODEL_FILE", str(tmp_path / "nowhere.toml"))
    with pytest.raises(SettingsError, match=r"nowhere.toml cannot be read"):
        ServingSettings.load().hyperparameters()


def test_a_variable_of_before_is_refused_with_the_line_for_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(ServingSettings.removed) == 18
    assert set(REMOVED.values()) < SETTINGS.keys()
    monkeypatch.setenv("STREAMGCN_EMBEDDING_DIM", "64")
    with pytest.raises(SettingsError) as refused:
        ServingSettings.load()
    assert "STREAMGCN_EMBEDDING_DIM='64' is no setting any more" in str(refused.value)
    assert "write the line `dim = 64` in a file" in str(refused.value)
    assert "STREAMGCN_MODEL_FILE" in str(refused.value)


def test_weights_of_types_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGCN_TYPE_WEIGHTS", "view=1,purchase=5.5")
    assert ServingSettings.load().weighing().types == (("view", 1.0), ("purchase", 5.5))
    monkeypatch.setenv("STREAMGCN_TYPE_WEIGHTS", "view")
    with pytest.raises(SettingsError, match="STREAMGCN_TYPE_WEIGHTS='view' is refused"):
        ServingSettings.load()


@pytest.mark.parametrize(
    "servers",
    [
        "a:b:c",
        "::1:9092",
        "host:",
        "host:0",
        "host:65536",
        "PLAINTEXT://h:9092",
        "h:1,,i:2",
        "h: 1",
    ],
)
def test_brokers_that_are_no_host_and_port_are_refused_with_the_form(
    monkeypatch: pytest.MonkeyPatch, servers: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    with pytest.raises(SettingsError, match=r"write host:9092, or \[::1\]:9092"):
        ServingSettings.load()


@pytest.mark.parametrize(
    "servers",
    [
        "h",
        "h:1",
        "kafka-1.example.com:9092, kafka_2:65535",
        "[::1]:9092",
        "[fe80::1%eth0]",
        "1.2.3.4:9",
    ],
)
def test_brokers_are_hosts_with_ports_or_addresses_of_both_families(
    monkeypatch: pytest.MonkeyPatch, servers: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    assert ServingSettings.load().kafka_bootstrap_servers == servers


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_may_stand_in_a_file_and_the_end_of_the_line_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    for name, secret in (
        ("KAFKA_SASL_PASSWORD", " hunter2 "),
        ("KAFKA_SSL_PASSWORD", "hünter3"),
        ("REDIS_URL", "redis://:hunter4@host/0"),
    ):
        (tmp_path / name).write_bytes((secret + end).encode())
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    settings = ServingSettings.load()
    assert settings.kafka_sasl_password
    assert settings.kafka_sasl_password.get_secret_value() == " hunter2 "
    assert settings.kafka_ssl_password
    assert settings.kafka_ssl_password.get_secret_value() == "hünter3"
    assert settings.redis_url == "redis://:hunter4@host/0"
    assert not any(secret in repr(settings) for secret in ("hunter2", "hünter3", "hunter4"))


def test_a_file_of_a_secret_that_is_of_no_use_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "bytes").write_bytes(b"\xff")
    for file, reason in (
        ("missing", "No such file or directory"),
        ("", "it is not a file"),
        ("empty", "it is empty"),
        ("bytes", "it is not UTF-8"),
    ):
        monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(tmp_path / file))
        with pytest.raises(SettingsError) as refused:
            ServingSettings.load()
        said = f"KAFKA_SASL_PASSWORD_FILE={tmp_path / file} is refused: {reason}"
        assert str(refused.value) == said


def test_a_secret_that_is_given_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://host/0")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SettingsError, match="REDIS_URL and REDIS_URL_FILE are both set"):
        ServingSettings.load()


def test_what_a_file_of_a_secret_holds_is_not_shown_when_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("hunter2")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SettingsError) as refused:
        ServingSettings.load()
    assert "hunter2" not in str(refused.value)
    assert f"REDIS_URL, read from {tmp_path / 'url'}, is refused" in str(refused.value)
