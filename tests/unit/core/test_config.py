import dataclasses
import hashlib
import math
from typing import Annotated

import pytest

from lola.core.config import (
    Config,
    Distinct,
    DistinctOrNone,
    NonEmpty,
    Positive,
    Size,
    Within,
    deferred_validation,
    fingerprint,
    require,
    runtime_field,
)
from lola.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Config):
    width: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other(Config):
    width: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Config):
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    part: Inner | Other = Inner()
    workers: int = runtime_field(1)

    def validate(self):
        require(self.rate > 0, "rate must be positive")


def test_how_does_not_change_the_fingerprint_but_what_does():
    assert fingerprint(Outer()) == fingerprint(Outer(workers=8))
    assert fingerprint(Outer()) != fingerprint(Outer(rate=0.2))
    assert fingerprint(Outer()) != fingerprint(Outer(part=Inner(width=4)))
    assert fingerprint(Outer()) != fingerprint(Outer(part=Other()))


def test_the_fingerprint_is_that_of_the_canonical_json():
    text = '[{"type":"Inner","width":3},"a"]'
    assert fingerprint(Inner(), "a") == hashlib.sha256(text.encode()).hexdigest()


def test_json_round_trip_keeps_types():
    config = Outer(rate=0.3, sizes=(4,), part=Other(width=9))
    again = Outer.from_json(config.to_json())
    assert again == config
    assert isinstance(again.part, Other)
    assert isinstance(again.sizes, tuple)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"rat": 1}, "rat"), ({"rate": "fast"}, "rate"), ({"rate": -1.0}, "positive")],
)
def test_bad_json_is_refused_in_one_line(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        Outer.from_json(values)
    assert "\n" not in str(error.value)


def test_replace_validates():
    with pytest.raises(ConfigError, match="positive"):
        Outer().replace(rate=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranges(Config):
    plain: float = 0.5
    whole: int = 1
    share: Annotated[float, Within("[0, 1)")] = 0.5
    workers: Size | tuple[Size, Size] = 1
    rate: Positive | None = None
    seeds: Distinct[int] = (0, 1)
    pairs: DistinctOrNone[tuple[Size, Size]] = ()
    levels: NonEmpty[Size] = (8, 8)
    part: Inner | None = None
    parts: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plain": math.nan}, "--plain must be a finite number, not nan"),
        ({"rate": math.inf}, "--rate must be a finite number, not inf"),
        ({"whole": 2**63}, "--whole must be an integer of 64 bits, not 9223372036854775808"),
        ({"share": 1.0}, "--share must be in [0, 1), not 1.0"),
        ({"share": -0.1}, "--share must be in [0, 1), not -0.1"),
        ({"share": math.nan}, "--share must be a finite number, not nan"),
        ({"workers": 0}, "--workers must be in [1, 65536], not 0"),
        ({"workers": (1, 0)}, "--workers must be in [1, 65536], not 0"),
        ({"rate": 0.0}, "--rate must be in (0, 1e30], not 0.0"),
        ({"rate": 0}, "--rate must be in (0, 1e30], not 0"),
        ({"seeds": ()}, "--seeds must name at least one"),
        ({"seeds": (3, 4, 3)}, "--seeds contains 3 more than once"),
        ({"pairs": ((1, 2), (1, 2))}, "--pairs contains (1, 2) more than once"),
        ({"pairs": ((1, 0),)}, "--pairs must be in [1, 65536], not 0"),
        ({"levels": ()}, "--levels must name at least one"),
        ({"levels": (8, 10**6)}, "--levels must be in [1, 65536], not 1000000"),
    ],
)
def test_values_out_of_the_range_of_their_type_are_refused(values, message):
    with pytest.raises(ConfigError) as error:
        Ranges(**values)
    assert str(error.value) == message


def test_values_within_the_range_of_their_type_are_taken():
    taken = Ranges(share=0.0, workers=(1, 65536), rate=1e30, pairs=((1, 2), (2, 1)), levels=(8, 8))
    assert Ranges.from_json(taken.to_json()) == taken


def test_messages_of_ranges_show_open_ends():
    assert 0 in Within("[0, 1)")
    assert 1 not in Within("[0, 1)")
    assert 0 not in Within("(0, 1]")
    assert 1 in Within("(0, 1]")
    assert math.nan not in Within("[0, 1]")
    assert str(Within("[1, inf)")) == "must be at least 1"
    assert str(Within("(0, inf)")) == "must be above 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Config):
    first_part: Ranges = Ranges()
    all_parts: tuple[Ranges, ...] = ()

    def validate(self):
        require(self.first_part.whole < 9, "--first-part.whole must be small; see -- and a--b")


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({"first_part": {"share": 2.0}}, "--first-part.share must be in [0, 1), not 2.0"),
        ({"all_parts": ({}, {"seeds": ()})}, "--all-parts.1.seeds must name at least one"),
        ({"first_part": {"whole": 9}}, "--first-part.whole must be small; see -- and a--b"),
    ],
)
def test_options_are_named_by_their_whole_path(whole, message):
    parts = {"first_part": {}, "all_parts": ()} | whole
    with deferred_validation():
        config = Whole(
            first_part=Ranges(**parts["first_part"]),
            all_parts=tuple(Ranges(**part) for part in parts["all_parts"]),
        )
    with pytest.raises(ConfigError) as error:
        config.check_options()
    assert str(error.value) == message
    with pytest.raises(ConfigError):
        Ranges(share=2.0)  # as ever: only what is deferred is not validated


def test_fields_leave_the_methods_of_configurations_alone():
    for kind in Config.classes.values():
        names = {field.name for field in dataclasses.fields(kind)}
        assert not names & (vars(Config).keys() - {"__dict__"}), kind
