"""docs/model.md says what the code says."""

from tests.services import ROOT
from trainer.model.hyperparameters import MODELS, SETTINGS, Hyperparameters
from trainer.model.model_file import filled_by

ROWS = [
    [cell.strip() for cell in line.strip("| \n").split("|")]
    for line in (ROOT / "docs" / "model.md").read_text().splitlines()
    if line.startswith("| `")
]


def test_the_documentation_names_each_number_of_the_model_and_no_other() -> None:
    assert sorted(row[0].strip("`") for row in ROWS) == sorted(SETTINGS)


def test_the_documentation_has_the_default_and_the_meaning_of_each_number() -> None:
    defaults = Hyperparameters()
    for row in ROWS:
        name, of = row[0].strip("`"), SETTINGS[row[0].strip("`")]
        default = getattr(defaults, name)
        other = "" if of.usual_next is None else f"; of next items {of.usual_next:g}"
        assert row[2] == (f"chosen ({of.usual:g}{other})" if default is None else str(default))
        assert (row[1] == "0 or 1") == of.switch, name
        assert row[3] == of.meaning


def test_each_number_that_is_chosen_has_a_usual_value_and_each_other_one_a_default() -> None:
    defaults = Hyperparameters()
    for name, of in SETTINGS.items():
        assert (of.usual is None) == (getattr(defaults, name) is not None), name


def test_the_names_of_a_grid_are_settings_of_the_part() -> None:
    for part in MODELS["blend"]:
        rounds = part.grid(Hyperparameters())
        assert rounds
        for each in rounds:
            assert set(each.names) <= part.names | {"epochs"}
            assert all(len(values) == len(each.names) for values in each.tries)


def test_the_file_of_the_published_protocol_leaves_nothing_to_be_chosen() -> None:
    assert not filled_by(ROOT / "benchmarks" / "gowalla.toml", Hyperparameters()).missing()
