"""Declared options: one declaration makes the check, the command-line option and the documentation."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, fields
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from keras_effnet.cli.options import config_options
from keras_effnet.cli.parameter_types import Choice, ChoiceList
from keras_effnet.config.declarations import Interval, declared_options, documented, option
from keras_effnet.config.recipes import recipe_config
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError


@documented
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a machine."""

    speed: float = option(0.5, "How fast it runs.", above=0, at_most=1)
    gears: int = option(3, "Number of gears.", at_least=1)
    share: float = option(0.0, "Share of `power`.", at_least=0, below=1)
    offset: float = option(0.0, "Any number.")
    fuel: Literal["petrol", "gas"] = option("gas", "What it burns.", unsupported={"coalgas": "No mine is left."})
    name: str | None = option(None, "What it is called.")
    loud: bool | None = option(None, "Whether it may be heard.")
    undeclared: int = 7


OPTIONS = declared_options(Settings)


def test_options_are_the_declared_fields_in_their_order():
    assert list(OPTIONS) == ["speed", "gears", "share", "offset", "fuel", "name", "loud"]
    assert [option.kind for option in OPTIONS.values()] == [float, int, float, float, str, str, bool]
    assert [name for name, option in OPTIONS.items() if option.optional] == ["name", "loud"]
    assert OPTIONS["fuel"].choices == ("petrol", "gas")
    assert OPTIONS["gears"].default == 3 == Settings().gears


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("speed", 1, 1.0),
        ("speed", "1e-3", 0.001),
        ("gears", 4.0, 4),
        ("gears", "5", 5),
        ("share", 0, 0.0),
        ("offset", -1e30, -1e30),
        ("name", None, None),
        ("loud", False, False),
    ],
)
def test_a_value_takes_the_type_of_its_option(name, given, expected):
    checked = OPTIONS[name].check(given)
    assert checked == expected and type(checked) is type(expected)


FLOAT32 = "offset must be a number that float32 holds, 1e-37 to 1e+38 in magnitude, got"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("speed", 0, "speed must be above 0 and at most 1, got 0."),
        ("speed", 1.01, "speed must be above 0 and at most 1, got 1.01."),
        ("share", 1.0, "share must be at least 0 and below 1, got 1.0."),
        ("gears", 0, "gears must be at least 1, got 0."),
        ("gears", 2.5, "gears must be an integer, got 2.5."),
        ("gears", True, "gears must be an integer, got True."),
        ("gears", None, "gears must be an integer, got None."),
        ("offset", math.inf, "offset must be a number, got inf."),
        ("offset", math.nan, "offset must be a number, got nan."),
        ("offset", -1e300, f"{FLOAT32} -1e+300."),
        ("offset", "1e-300", f"{FLOAT32} 1e-300."),
        ("offset", "fast", "offset must be a number, got 'fast'."),
        ("name", 3, "name must be a string, got 3."),
        ("loud", 1, "loud must be true or false, got 1."),
        ("fuel", "petroll", "Unknown fuel 'petroll'. Did you mean 'petrol'? Choose one of: petrol, gas."),
        ("fuel", "Coal-Gas", "No mine is left."),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(name, value, message):
    with pytest.raises(UserError) as caught:
        OPTIONS[name].check(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("interval", "words", "condition", "notation"),
    [
        (Interval(0, 1, open_low=False), "at least 0 and below 1", "0<=x<1", "[0, 1)"),
        (Interval(0, 1, open_high=False), "above 0 and at most 1", "0<x<=1", "(0, 1]"),
        (Interval(low=32, open_low=False), "at least 32", "x>=32", "[32, inf)"),
        (Interval(low=0), "above 0", "x>0", "(0, inf)"),
        (Interval(high=8, open_high=False), "at most 8", "x<=8", "(-inf, 8]"),
        (Interval(0, 2**32 - 1, False, False), "at least 0 and at most 4294967295", "0<=x<=4294967295", None),
        (Interval(), "", "", None),
    ],
)
def test_an_interval_is_written_in_three_ways(interval, words, condition, notation):
    assert (str(interval), interval.condition) == (words, condition)
    assert notation in (None, interval.notation)


def test_an_unsupported_type_is_refused_where_it_is_declared():
    @dataclass
    class Wrong:
        sizes: tuple = option((), "Sizes.")

    with pytest.raises(TypeError, match="str, bool, int, float, got <class 'tuple'>"):
        declared_options(Wrong)


def test_the_docstring_has_an_entry_for_each_option():
    lines = inspect.getdoc(Settings).splitlines()
    assert lines[:3] == ["Settings of a machine.", "", "Args:"]
    assert "    speed: Float in (0, 1]. How fast it runs." in lines
    assert "    gears: Int, at least 1. Number of gears." in lines
    assert '    fuel: One of `"petrol"`, `"gas"`. What it burns.' in lines
    assert "    name: String, or None. What it is called." in lines


# ------------------------------------------------------------------ on the command line


@click.command()
@config_options(Settings)
def drive(**options) -> None:
    click.echo(repr({name: value for name, value in options.items() if value is not None}))


def run(*arguments: str):
    return CliRunner().invoke(drive, arguments)


def test_an_option_that_is_not_given_is_none_so_that_a_file_can_set_it():
    assert run().output == "{}\n"
    assert run("--speed", "1", "--fuel", "petrol", "--no-loud").output == (
        "{'speed': 1.0, 'fuel': 'petrol', 'loud': False}\n"
    )


def test_help_states_meaning_choices_default_and_range():
    text = " ".join(run("--help").output.split())
    assert "--speed FLOAT How fast it runs. [default: 0.5; 0<x<=1]" in text
    assert "--gears INTEGER Number of gears. [default: 3; x>=1]" in text
    assert "--fuel [petrol|gas] What it burns. [default: gas]" in text
    assert "--share FLOAT Share of power. [default: 0.0; 0<=x<1]" in text
    assert "--loud / --no-loud Whether it may be heard." in text


def test_a_misspelt_choice_on_the_command_line_gets_the_nearest():
    assert "Did you mean 'petrol'?" in str(run("--fuel", "petrl").exception)


def test_names_separated_by_commas_are_checked_one_by_one():
    fuels = ChoiceList("fuel", ["petrol", "gas"])
    assert fuels.convert("gas, petrol,", None, None) == ["gas", "petrol"]
    assert fuels.convert("", None, None) == []
    with pytest.raises(UserError, match=r"Unknown fuel 'gass'\. Did you mean 'gas'"):
        fuels.convert("petrol,gass", None, None)
    with pytest.raises(UserError, match="Unknown fuel ''"):
        ChoiceList("fuel", ["petrol", "gas"], required=True).convert("", None, None)


def test_a_choice_names_its_option_in_an_error():
    with pytest.raises(UserError, match=r"Unknown input type 'uint9'\. Did you mean 'uint8'"):
        Choice(["float32", "uint8"]).convert("uint9", click.Option(["--input-type"]), None)


# ------------------------------------------------------------------ TrainConfig


def test_none_on_a_command_line_undoes_what_a_recipe_sets():
    assert recipe_config("finetune").weights == "imagenet"
    assert recipe_config("finetune", weights="none").weights is None
    assert recipe_config("paper-v2", model="v2-b0", epochs=40, progressive="none").progressive is None
    assert TrainConfig(class_weight="none").class_weight == "none"


def test_every_field_of_the_config_is_declared_with_a_valid_default_and_a_meaning():
    options = declared_options(TrainConfig)
    assert list(options) == [field.name for field in fields(TrainConfig)]
    for declared in options.values():
        assert declared.check(declared.default) is declared.default
        assert declared.help[0].isupper() or not declared.help[0].isalpha()
        assert declared.help.endswith(".")
