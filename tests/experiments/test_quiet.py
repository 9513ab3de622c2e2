import warnings

import pytest

from experiments.quiet import quiet_avalanche


def test_avalanches_own_deprecations_are_left_out_and_others_are_given() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_avalanche():
            warnings.warn("Call to deprecated function update", DeprecationWarning, stacklevel=1)
            warnings.warn("something to know", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["something to know"]


def test_an_error_within_comes_out() -> None:
    with pytest.raises(ValueError, match="broken"), quiet_avalanche():
        raise ValueError("broken")
