import pytest

from gift_cl.registry import Registry, parse_options


def power(base: int, exponent: int = 2) -> int:
    return int(base**exponent)


def make() -> Registry[int]:
    registry: Registry[int] = Registry("number")
    registry.add("power", power, reference="arithmetic")
    return registry


def test_options_stand_with_and_without_their_names() -> None:
    assert make().create("power:3") == 9
    assert make().create("power:base=2,exponent=3") == 8


def test_options_are_read_as_numbers_truth_values_or_text() -> None:
    assert parse_options("kl:4,t=0.5,t2=True,name=x") == ([4], {"t": 0.5, "t2": True, "name": "x"})


def test_an_option_is_given_once() -> None:
    with pytest.raises(ValueError, match="each option of `toy:side=1,side=2` once, got `side` twice"):
        parse_options("toy:side=1,side=2")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="Unknown number `root`. Known: power"):
        make().create("root:2")


@pytest.mark.parametrize("spec", ["power", "power:1,2,3", "power:2,root=3"])
def test_bad_options_list_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match="Options of `power`: base, exponent"):
        make().create(spec)


def test_a_value_of_the_wrong_kind_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="Bad option value in number `power:two`"):
        make().create("power:two")


def test_a_name_cannot_be_taken_twice() -> None:
    registry = make()
    with pytest.raises(ValueError, match="registered already"):
        registry.add("power", power, reference="again")
