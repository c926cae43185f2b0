import dataclasses
import hashlib

import pytest

from lola.config import Config, fingerprint, how, require
from lola.errors import ConfigError


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
    workers: int = how(1)

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
    again = Outer.from_json(config.what())
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
