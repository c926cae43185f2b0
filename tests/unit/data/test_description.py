import json

import pytest

from lola.core.errors import ConfigError
from lola.data.description import SYSTEMS, build_system, get_system, read_description
from lola.data.systems import Field, System

STORED = System(
    name="stored",
    datasets=("stored",),
    dimensions=2,
    fields=(Field("a"), Field("u", order=1), Field("b", role="constant"), Field("s", role="scalar")),
    geometry=(("x", "uniform"), ("y", "nonuniform")),
    axes=("x", "y"),
    constants=("Reynolds", "Prandtl"),
)


def build(text, inferred=STORED):
    return build_system(read_description(text, "system.yaml"), "system.yaml", inferred)


def test_an_empty_description_is_what_the_files_say():
    system = build("")
    assert (system.name, system.fields, system.shown) == ("stored", STORED.fields, "a")
    assert system.evolving == (0, 1, 2)
    assert system.described


def test_keys_without_a_value_are_as_if_they_were_not_there():
    keys = ("symmetries", "bounds", "conserved", "fields", "stride", "starts", "mask", "log_parameters")
    assert build("".join(f"{key}:\n" for key in keys)) == build("")
    assert build("symmetries:\n  flips:\n  roll: true\n") == build("symmetries: {roll: true}")


def test_a_description_chooses_fields_their_order_and_transforms():
    system = build("fields: {u: {}, a: {transform: log}}\nname: mine\nstride: 3\nshown: u_y")
    assert system.channels == ("u_x", "u_y", "a")
    assert system.transforms == ("identity", "identity", "log")
    assert (system.name, system.stride, system.shown) == ("mine", 3, "u_y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML at line 1"),
        ("[1]", "must be a mapping"),
        ("colour: red", "colour is no key of a description; known are name, datasets"),
        ("symmetries: {flip: [0]}", "symmetries.flip is no key of a description; known are flips, permute"),
        ("fields: {a: {transform: ln}}", "fields.a.transform: input should be 'identity', 'log'"),
        ("fields: {a: {tranform: log}}", "fields.a.tranform is no key .*known are order, transform, role"),
        ("fields: {c: {}}", "fields.c is no field of the data; they have a, u, b, s"),
        ("fields: {a: {order: 1}}", "fields.a.order is 1, and the data have 0; omit it"),
        ("fields: {b: {}}", "fields has none whose role is state"),
        ("dimensions: 3", "dimensions is 3, but the data have 2"),
        ("stride: 0", "stride: input should be greater than 0, not 0"),
        ("stride: 1.5", "stride: .*not 1.5"),
        ("ranges: [[5, 2]]", r"ranges has \[5, 2\], which is empty"),
        ("ranges: [[1]]", "ranges"),
        ("shown: c", "shown names c; the channels are a, u_x, u_y, b, s"),
        ("shown: b", "shown names b, which is given and not emulated"),
        ("symmetries: {flips: [2]}", "symmetries name axis 2; the axes are 0 to 1"),
        (
            "symmetries: {reflections: [{axis: 0, tilts: [[c, 1]]}, {axis: 1, complements: [[a, 1]]}]}",
            "symmetries.reflections names c",
        ),
        ("bounds: {a: [2, 1]}", r"bounds.a must be \[low, high\]"),
        ("conserved: {mass: {channels: [rho]}}", "conserved.mass.channels names rho"),
        ("conserved: {mass: {channels: [a], boundaries: [closed]}}", "conserved.mass.boundaries.0"),
        ("mean: [1, 2]\nstd: [1, 2]", "mean has 2 numbers for 5 channels"),
        ("std: [1, 1, 1, 1, 1]", "std is given without mean; add mean, or remove both"),
        ("mean: [1, 1, 1, 1, 1]", "mean is given without std; add std, or remove both"),
        ("symetries:", "symetries is no key of a description; .*; did you mean symmetries"),
        ("name: a/b", "name is 'a/b'; use letters"),
        (
            "log_parameters: [Prandtl, reynolds]",
            "log_parameters names reynolds; the constants of the simulations are Reynolds, Prandtl; did you "
            "mean Reynolds",
        ),
        ("log_parameters: [s]", "log_parameters names s, which varies in time; give it the transform log"),
        ("geometry: {yy: log}", "geometry names yy; the grid axes are x, y; did you mean y"),
        ("geometry: {y: curved}", "geometry.y: input should be 'uniform', 'nonuniform'"),
        ("mask: {field: bb, outside: 1}", "mask.field names bb; the scalar .* are b; did you mean b"),
        ("shown: u_z", r"shown names u_z; the channels are a, u_x, u_y, b, s; did you mean u_[xy]"),
        ("bounds: {u_z: [0, 1]}", "bounds names u_z; the channels are"),
        ("fields: {uu: {}}", "fields.uu is no field of the data; they have a, u, b, s; did you mean u"),
        (
            "fields: {mask: {tranform: log}}",
            "fields.mask.tranform is no .* known are order, transform, role; did",
        ),
        (
            "symmetries: {reflections: [{axes: 0}]}",
            "reflections.0.ax.*known are axis, complements, tilts; did",
        ),
        ("symmetry: {}", "symmetry is no key of a description; .*; did you mean symmetries"),
    ],
)
def test_a_faulty_description_is_one_line_that_names_file_and_key(text, message):
    with pytest.raises(ConfigError, match=f"^system.yaml:? .*{message}|^system.yaml: {message}") as error:
        build(text)
    assert "\n" not in str(error.value)


def test_without_files_a_description_must_be_complete():
    with pytest.raises(ConfigError, match="has no fields, and no data beside it that tell"):
        build("name: mine\ndimensions: 2", None)
    assert build("name: mine\ndimensions: 1\nfields: {a: {}}", None).channels == ("a",)


def test_the_description_is_part_of_the_identity_and_statistics_are_not():
    names = ["", "log_parameters: [Prandtl]", "fields: {a: {}}", "symmetries: {flips: [0]}", "name: mine"]
    assert len({build(text).identity for text in names}) == len(names)
    assert build("mean: [0, 0, 0, 0, 0]\nstd: [1, 1, 1, 1, 1]").identity == build("").identity


@pytest.mark.parametrize(
    ("text", "scoring", "reporting"),
    [
        ("shown: u_y", False, True),
        ("seconds_per_state: 3", False, True),
        ("ranges: [[1, 7]]", True, False),
        ("spectrum_ranges: [[1, 7]]", True, False),
        ("bounds: {a: [0, null]}", True, False),
        ("conserved: {mass: {channels: [a]}}", True, False),
        ("geometry: {y: chebyshev}", True, False),
        ("starts: [3]", False, False),  # of the configurations of evaluations
        ("stride: 2", False, False),  # likewise, and of emulators
    ],
)
def test_keys_that_no_training_depends_on_change_other_fingerprints_alone(text, scoring, reporting):
    before, after = build(""), build(text)
    assert before != after
    assert before.identity == after.identity
    assert (before.scoring != after.scoring, before.reporting != after.reporting) == (scoring, reporting)


def test_a_description_completes_the_kinds_of_axes():
    assert build("geometry: {y: chebyshev}").geometry == (("x", "uniform"), ("y", "chebyshev"))


def test_a_system_survives_json():
    for system in (*SYSTEMS.values(), build("bounds: {a: [0, null]}\nconserved: {m: {channels: [a]}}")):
        assert System.from_json(json.loads(json.dumps(system.to_json()))) == system


def test_the_names_of_the_papers_systems_stand_for_them():
    assert not any(system.identity or system.scoring or system.reporting for system in SYSTEMS.values())
    with pytest.raises(ConfigError, match=r"no system is called 'weather'.*euler"):
        get_system("weather")
