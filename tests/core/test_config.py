import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core import config as settings
from understudy.core.errors import ConfigError


@dataclass(frozen=True)
class Learner:
    rate: float = 3e-4
    passes: int = 4
    norm: float | None = 0.5


@dataclass(frozen=True)
class Net:
    sizes: tuple[int, ...] = (64, 64)
    kind: Literal["mlp", "gru"] = "mlp"
    span: tuple[float, float] = (-1.0, 1.0)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    discriminator_rate: float = 1e-3
    name: str = ""
    fast: bool = False
    limit: int | float | None = None
    tag: str | None = None
    learner: Learner = field(default_factory=lambda: Learner(passes=7))
    net: Net | None = None

    def __post_init__(self):
        if self.discriminator_rate <= 0:
            raise ConfigError(f"discriminator_rate: got {self.discriminator_rate}, but a rate is above 0.")


numbers = st.floats(allow_nan=False)
configs = st.builds(
    Config,
    discriminator_rate=st.floats(min_value=1e-9, allow_nan=False),
    name=st.text(),
    fast=st.booleans(),
    limit=st.none() | st.integers() | numbers,
    tag=st.none() | st.text(),
    learner=st.builds(Learner, rate=numbers, passes=st.integers(), norm=st.none() | numbers),
    net=st.none()
    | st.builds(
        Net,
        sizes=st.lists(st.integers()).map(tuple),
        kind=st.sampled_from(["mlp", "gru"]),
        span=st.tuples(numbers, numbers),
        notes=st.dictionaries(st.text(), st.integers()),
    ),
)


@given(configs)
def test_every_config_survives_its_way_through_standard_json(config):
    text = json.dumps(settings.to_dict(config), allow_nan=False)
    again = settings.from_dict(Config, json.loads(text))
    assert again == config
    assert type(again.limit) is type(config.limit), "1 and 1.0 stay what they were"


@given(configs)
def test_replacing_a_setting_by_its_own_value_changes_nothing(config):
    assert settings.merge(config, {"learner.passes": config.learner.passes, "fast": config.fast}) == config


def test_nan_comes_back_as_nan():
    assert math.isnan(settings.from_dict(Learner, settings.to_dict(Learner(rate=math.nan))).rate)


def test_what_is_left_out_keeps_its_default():
    assert settings.from_dict(Config, {"learner": {"passes": 9}}) == Config(learner=Learner(passes=9))
    assert settings.from_dict(Config, {"learner": {"rate": 1}}).learner == Learner(1.0, passes=7), "the outer's default"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"discrimnator_rate": 1.0},
            "unknown setting `discrimnator_rate` for magail. Did you mean `discriminator_rate`?",
        ),
        ({"learner": {"passez": 1}}, "unknown setting `learner.passez` for magail. Did you mean `passes`?"),
        ({"learner": {"passes": 2.5}}, "learner.passes of magail: expected a whole number, got 2.5."),
        ({"learner": {"passes": True}}, "learner.passes of magail: expected a whole number, got True."),
        ({"learner": {"norm": "big"}}, "learner.norm of magail: expected a number or none, got 'big'."),
        ({"learner": 3}, "learner of magail: expected settings by name, got 3."),
        ({"fast": 1}, "fast of magail: expected true or false, got 1."),
        ({"name": 1}, "name of magail: expected a text, got 1."),
        ({"net": {"kind": "gruu"}}, "net.kind of magail: got 'gruu'. Did you mean `gru`?"),
        ({"net": {"kind": 3}}, "net.kind of magail: expected one of 'mlp', 'gru', got 3."),
        ({"net": {"sizes": [64, "x"]}}, "net.sizes of magail: expected a list (each a whole number), got [64, 'x']."),
        ({"net": {"sizes": "64"}}, "net.sizes of magail: expected a list (each a whole number), got '64'."),
        ({"net": {"span": [1.0]}}, "net.span of magail: expected a list of 2 (a number, a number), got [1.0]."),
        ({"net": {"layers": 2}}, "unknown setting `net.layers` for magail. Known: kind, notes, sizes, span."),
        ({"discriminator_rate": -1}, "discriminator_rate: got -1.0, but a rate is above 0."),
    ],
)
def test_a_wrong_setting_is_refused_by_name_value_and_type(data, message):
    with pytest.raises(ConfigError) as refused:
        settings.from_dict(Config, data, "magail")
    assert message in str(refused.value)


def test_a_setting_without_a_default_must_be_given():
    @dataclass(frozen=True)
    class Needy:
        agents: int
        size: float = 1.0

    with pytest.raises(ConfigError, match="Needy: `agents` must be given"):
        settings.from_dict(Needy, {"size": 2})


def test_a_function_takes_settings_as_a_dataclass_does():
    def make(agents: int, side: float = 1.0, title: str = "field") -> tuple:
        return agents, side, title

    assert settings.from_dict(make, {"agents": settings.Text("3"), "side": 2}) == (3, 2.0, "field")
    with pytest.raises(ConfigError, match=r"unknown setting `agent` for make. Did you mean `agents`\?"):
        settings.from_dict(make, {"agent": 3})


def test_settings_are_replaced_by_dotted_names_typed_on_a_command_line():
    typed = {"learner.rate": "1e-2", "learner.norm": "none", "fast": "true", "tag": "5", "net.sizes": "[32, 8]"}
    wanted = Config(learner=Learner(rate=1e-2, passes=7, norm=None), fast=True, tag="5", net=Net(sizes=(32, 8)))
    assert settings.merge(Config(), typed) == wanted
    assert settings.merge(Config(), {"limit": "7", "name": "none"}) == Config(limit=7, name="none")
    assert settings.merge(Config(), {"learner.rate": "inf"}).learner.rate == math.inf
    with pytest.raises(ConfigError, match=r"no settings under `lerner`. Did you mean `learner`\?"):
        settings.merge(Config(), {"lerner.rate": 1})
    with pytest.raises(ConfigError, match=r"learner.rate of Config: expected a number, got 'fast'"):
        settings.merge(Config(), {"learner.rate": "fast"})


def test_files_are_read_and_a_broken_one_is_named(tmp_path):
    wanted = Config(discriminator_rate=0.5, learner=Learner(passes=2, norm=None))
    (tmp_path / "a.toml").write_text("discriminator_rate = 0.5\n[learner]\npasses = 2\n")
    assert settings.load(Config, tmp_path / "a.toml") == dataclasses.replace(wanted, learner=Learner(passes=2))
    (tmp_path / "b.json").write_text(json.dumps(settings.to_dict(wanted)))
    assert settings.load(Config, tmp_path / "b.json") == wanted
    (tmp_path / "c.toml").write_text("rate 3")
    (tmp_path / "d.json").write_bytes(b"\xff\xfe")
    (tmp_path / "e.json").write_text("[" * 100_000)
    (tmp_path / "f.json").write_text("[1]")
    for name, reason in {
        "c.toml": "is no TOML.*line 1",
        "d.json": "is no JSON",
        "e.json": "is no JSON",
        "f.json": "expected settings by name",
        "g.toml": "No such file",
        "h.yaml": "settings are read from .toml or .json",
    }.items():
        with pytest.raises(ConfigError, match=rf"{name}.*{reason}"):
            settings.load(Config, tmp_path / name)


def test_what_is_no_setting_is_refused():
    with pytest.raises(ConfigError, match="of type object is no setting"):
        settings.to_dict({"a": object()})


def test_differences_are_told_by_name_with_both_values():
    old, new = settings.to_dict(Config()), settings.to_dict(Config(learner=Learner(rate=0.01, passes=7), limit=1))
    assert list(settings.differences(old, new)) == [
        "limit: None before, 1 now",
        "learner.rate: 0.0003 before, 0.01 now",
    ]
    assert list(settings.differences({"a": 1, "b": 1}, {"a": 1.0, "c": 2})) == [
        "a: 1 before, 1.0 now",
        "b: 1 before, nothing now",
        "c: nothing before, 2 now",
    ]


def test_a_share_lies_between_0_and_1_and_the_end_may_be_left_out():
    @dataclass
    class Part:
        rate: float

    for rate in (0.0, 0.5, 1.0):
        settings.share(Part(rate), "rate")
    settings.share(Part(0.99), "rate", below=True)
    for rate, below in ((-0.1, False), (1.1, False), (math.nan, False), (1.0, True)):
        with pytest.raises(ConfigError, match=r"rate: got .* must lie in"):
            settings.share(Part(rate), "rate", below=below)
