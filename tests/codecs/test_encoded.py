"""What holds for stored images of every codec: their cost, selection, joining and checks."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from gift_cl.codecs import CODECS, Downscale, EncodedImages, Jpeg, Webp, build_codec, concat

SPECS = (
    "raw",
    "png",
    "jpeg:75",
    "webp:75",
    "webp:lossless",
    "quantize:3",
    "downscale:2",
    "downscale:4,bits=5",
)
every_codec = pytest.mark.parametrize("spec", SPECS)


def noise(num_images: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_images, *shape), dtype=torch.uint8, generator=generator)


def encoded_of(streams: list[bytes], *, shared: bytes = b"") -> EncodedImages:
    return EncodedImages.from_streams("png", (1, 8, 8), streams, shared=shared)


def test_every_registered_codec_is_tested_here() -> None:
    takes_no_pixels = {"float32", "files"}  # they have tests of their own
    assert {spec.partition(":")[0] for spec in SPECS} == set(CODECS.names()) - takes_no_pixels


@every_codec
def test_nbytes_is_what_is_held(spec: str) -> None:
    encoded = build_codec(spec).encode(noise(5, 3, 8, 8))
    table = 0 if encoded.lengths is None else 2 * 5
    assert encoded.nbytes == len(encoded.payload) + len(encoded.shared) + table
    assert encoded.nbytes == sum(map(len, encoded.streams())) + len(encoded.shared) + table


@every_codec
def test_costs_of_images_and_shared_bytes_sum_to_nbytes(spec: str) -> None:
    encoded = build_codec(spec).encode(noise(5, 1, 8, 8))
    each = encoded.nbytes_each
    assert each.dtype == torch.int64
    assert each.shape == (5,)
    assert int(each.sum()) + len(encoded.shared) == encoded.nbytes


@every_codec
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12)])
def test_selection_decodes_to_the_selected_images(spec: str, shape: tuple[int, int, int]) -> None:
    encoded = build_codec(spec).encode(noise(6, *shape))
    for indices in ([3], [5, 0, 0, 2], list(range(6)), []):
        selected = encoded.select(indices)
        assert len(selected) == len(indices)
        assert torch.equal(selected.decode(), encoded.decode()[torch.tensor(indices).long()])


@every_codec
def test_joined_parts_equal_what_is_encoded_together(spec: str) -> None:
    codec, images = build_codec(spec), noise(7, 3, 8, 8)
    together = codec.encode(images)
    joined = concat([codec.encode(images[a:b]) for a, b in ((0, 2), (2, 2), (2, 3), (3, 7))])
    assert joined.nbytes == together.nbytes
    assert torch.equal(joined.payload, together.payload)
    assert torch.equal(joined.decode(), together.decode())


@every_codec
def test_no_images_cost_nothing(spec: str) -> None:
    codec = build_codec(spec)
    empty = codec.encode(noise(0, 3, 8, 8))
    for none in (empty, codec.encode(noise(2, 3, 8, 8)).select([]), concat([empty, empty])):
        assert len(none) == none.nbytes == 0
        assert none.nbytes_each.shape == (0,)
        assert none.streams() == []
        assert none.decode().shape == (0, 3, 8, 8)
        assert none.decode().dtype == torch.uint8


@every_codec
def test_codec_is_rebuilt_from_its_spec_and_from_a_pickle(spec: str) -> None:
    codec = build_codec(spec)
    assert codec.spec == spec
    assert build_codec(codec.spec) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    encoded = codec.encode(noise(2, 1, 8, 8))
    assert torch.equal(pickle.loads(pickle.dumps(encoded)).decode(), encoded.decode())


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("downscale:2,bits=8", Downscale(2)),
        ("downscale:factor=2,bits=4", Downscale(2, bits=4)),
        ("jpeg:quality=75", Jpeg(75)),
        ("webp:quality=lossless", Webp("lossless")),
    ],
)
def test_other_spellings_build_the_same_codec(written: str, canonical: object) -> None:
    assert build_codec(written) == canonical


@every_codec
def test_images_are_left_as_they_are(spec: str) -> None:
    images = noise(3, 3, 8, 8)
    before = images.clone()
    build_codec(spec).encode(images).decode()
    assert torch.equal(images, before)


@every_codec
def test_memory_layout_of_images_does_not_matter(spec: str) -> None:
    codec, images = build_codec(spec), noise(4, 3, 8, 8)
    strided = codec.encode(images.contiguous(memory_format=torch.channels_last))
    assert torch.equal(strided.payload, codec.encode(images).payload)


def test_pinned_cost_of_streams_and_table() -> None:
    encoded = encoded_of([b"abc", b"", b"de"], shared=b"xyz")
    assert encoded.nbytes == 5 + 3 * 2 + 3
    assert encoded.nbytes_each.tolist() == [5, 2, 4]
    assert encoded.streams() == [b"abc", b"", b"de"]


@pytest.mark.parametrize(("longest", "entry"), [(65_535, 2), (65_536, 4)])
def test_table_takes_two_bytes_an_image_until_a_stream_needs_four(longest: int, entry: int) -> None:
    encoded = encoded_of([bytes(longest), b"a"])
    assert encoded.nbytes == longest + 1 + 2 * entry
    assert encoded.nbytes_each.tolist() == [longest + entry, 1 + entry]


def test_streams_follow_the_selection() -> None:
    selected = encoded_of([b"abc", b"", b"de"], shared=b"x").select(torch.tensor([2, 0, 2]))
    assert selected.streams() == [b"de", b"abc", b"de"]
    assert bytes(selected.shared.tolist()) == b"x"


@every_codec
def test_selection_owns_its_bytes(spec: str) -> None:
    encoded = build_codec(spec).encode(noise(3, 1, 8, 8))
    selected = encoded.select([0, 1, 2])
    before = selected.payload.clone()
    encoded.payload.zero_()
    assert torch.equal(selected.payload, before)


def test_joining_equally_long_and_other_streams_keeps_each() -> None:
    table = encoded_of([b"abc", b"d"])
    equal = EncodedImages("png", (1, 8, 8), torch.ones(4).byte(), None, 2, torch.empty(0).byte())
    longer = EncodedImages("png", (1, 8, 8), torch.ones(6).byte(), None, 2, torch.empty(0).byte())
    assert list(map(len, concat([table, equal]).streams())) == [3, 1, 2, 2]
    assert list(map(len, concat([equal, longer]).streams())) == [2, 2, 3, 3]
    assert concat([equal, equal]).lengths is None


def test_ten_thousand_images_are_selected_and_joined_in_well_under_a_second() -> None:
    encoded = encoded_of([bytes(1000 + index % 7) for index in range(10_000)])
    start = time.perf_counter()
    backwards = encoded.select(torch.arange(9_999, -1, -1))
    concat([backwards, encoded])
    assert time.perf_counter() - start < 1.0  # 0.04 s on two cores


def test_joining_different_codecs_is_refused() -> None:
    parts = [build_codec(spec).encode(noise(1, 1, 8, 8)) for spec in ("jpeg:75", "jpeg:90")]
    with pytest.raises(ValueError, match=r"one codec and image shape, got `jpeg:75` .* `jpeg:90`"):
        concat(parts)


def test_joining_different_shapes_is_refused() -> None:
    parts = [build_codec("raw").encode(noise(1, 1, 8, size)) for size in (8, 4)]
    with pytest.raises(ValueError, match=r"got `raw` \(1, 8, 8\) and `raw` \(1, 8, 4\)"):
        concat(parts)


def test_joining_different_shared_bytes_is_refused() -> None:
    parts = [encoded_of([b"a"], shared=b"x"), encoded_of([b"a"], shared=b"y")]
    with pytest.raises(ValueError, match=r"same `shared` bytes.*encode them together"):
        concat(parts)


def test_joining_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one part in `parts`"):
        concat([])


@pytest.mark.parametrize("indices", [[3], [-1], torch.tensor([0, 7])])
def test_indices_out_of_range_are_refused(indices: Any) -> None:
    with pytest.raises(ValueError, match=r"`indices` in \[0, 3\)"):
        build_codec("raw").encode(noise(3, 1, 8, 8)).select(indices)


@pytest.mark.parametrize(
    "indices", [[0.5], torch.tensor([True, False, True]), torch.tensor([[0]]), torch.tensor(0)]
)
def test_indices_that_are_not_whole_numbers_are_refused(indices: Any) -> None:
    with pytest.raises(TypeError, match=r"`indices` as whole numbers .*mask.nonzero"):
        build_codec("raw").encode(noise(3, 1, 8, 8)).select(indices)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("image_shape", (8, 8), "`image_shape` of positive"),
        ("image_shape", (1, 0, 8), "`image_shape` of positive"),
        ("num_images", -1, "`num_images` of at least 0"),
        ("num_images", 2, r"`lengths` of shape \(2,\)"),
        ("payload", torch.zeros(5), "`payload` of torch.uint8"),
        ("payload", torch.zeros(5, 1).byte(), "`payload` of torch.uint8 with one dimension"),
        ("payload", torch.zeros(6).byte(), "`lengths` to sum to the 6 bytes"),
        ("shared", torch.zeros(1).long(), "`shared` of torch.uint8"),
        ("lengths", torch.tensor([2, 0, 3], dtype=torch.int32), "`lengths` of torch.int64"),
        ("lengths", torch.tensor([2, 0]), r"`lengths` of shape \(3,\)"),
        ("lengths", torch.tensor([-1, 3, 3]), r"`lengths` in \[0, 5\]"),
        ("lengths", torch.tensor([2**63 - 1, 2**63 - 1, 7]), r"`lengths` in \[0, 5\]"),
        ("lengths", torch.tensor([2, 0, 2]), "`lengths` to sum to the 5 bytes"),
        ("lengths", None, "`payload` to hold 3 equally long streams"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(field: str, value: Any, match: str) -> None:
    fields: dict[str, Any] = {
        "codec": "png",
        "image_shape": (1, 8, 8),
        "payload": torch.zeros(5, dtype=torch.uint8),
        "lengths": torch.tensor([2, 0, 3]),
        "num_images": 3,
        "shared": torch.zeros(1, dtype=torch.uint8),
    }
    EncodedImages(**fields)
    with pytest.raises(ValueError, match=match):
        EncodedImages(**fields | {field: value})


def test_payload_that_is_no_tensor_is_refused() -> None:
    payload: Any = b"abc"
    with pytest.raises(TypeError, match="`payload` to be a tensor, got bytes"):
        EncodedImages("raw", (1, 1, 3), payload, None, 1, torch.empty(0).byte())


@every_codec
def test_float_images_are_refused_with_the_cure(spec: str) -> None:
    with pytest.raises(TypeError, match=r"`images` of torch.uint8.*\(images \* 255\).round"):
        build_codec(spec).encode(torch.rand(1, 3, 8, 8))


@every_codec
def test_images_that_are_no_tensor_are_refused(spec: str) -> None:
    images: Any = noise(1, 3, 8, 8).numpy()
    with pytest.raises(TypeError, match="`images` to be a uint8 tensor, got ndarray"):
        build_codec(spec).encode(images)


@every_codec
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 0, 8)])
def test_images_of_another_shape_are_refused(spec: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`images` of shape \(N, C, H, W\)"):
        build_codec(spec).encode(torch.zeros(shape, dtype=torch.uint8))


@every_codec
def test_images_of_another_codec_are_refused(spec: str) -> None:
    other = build_codec("quantize:7").encode(noise(1, 3, 8, 8))
    with pytest.raises(ValueError, match=rf"encoded by `{spec}`, got `quantize:7`"):
        build_codec(spec).decode(other)


def test_unknown_codec_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown codec `gif`\. Known: raw, png, jpeg, webp"):
        EncodedImages.from_streams("gif", (1, 8, 8), []).decode()
