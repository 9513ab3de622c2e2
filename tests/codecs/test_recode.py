import pytest
import torch

from gift_cl.codecs import build_codec, recode


def noise(count: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("spec", ["raw", "png", "webp:lossless", "quantize:8"])
@pytest.mark.parametrize("count", [0, 1, 600])
def test_a_codec_that_loses_nothing_keeps_the_images(spec: str, count: int) -> None:
    images = noise(count)
    recoded = recode(build_codec("png").encode(images), build_codec(spec))
    assert recoded.codec == spec
    assert torch.equal(recoded.decode(), images)


def test_chunks_are_what_one_pass_writes() -> None:
    images, codec = noise(600), build_codec("jpeg:75")
    whole, recoded = codec.encode(images), recode(build_codec("raw").encode(images), codec)
    assert torch.equal(recoded.payload, whole.payload)
    assert recoded.nbytes == whole.nbytes


def test_images_of_the_codec_itself_are_not_encoded_again() -> None:
    encoded = build_codec("jpeg:75").encode(noise(3))
    assert recode(encoded, build_codec("jpeg:75")) is encoded


def test_progress_reaches_the_end() -> None:
    told: list[tuple[int, int]] = []
    recode(
        build_codec("raw").encode(noise(600)), build_codec("png"), progress=lambda *done: told.append(done)
    )
    assert told == [(256, 600), (512, 600), (600, 600)]


def test_floats_do_not_become_pixels() -> None:
    floats = build_codec("float32").encode(torch.zeros(2, 3, 8, 8))
    with pytest.raises(TypeError, match=r"Expected `images` of torch\.uint8, got torch\.float32"):
        recode(floats, build_codec("png"))
