from pathlib import Path

import pytest
import torch

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError
from gift_cl.evaluation.stored_streams import open_label_stream
from gift_cl.label_streams import FKDStream, pack_stream
from gift_cl.normalization import Normalization

NORMALIZATION = Normalization((0.5,), (0.25,))


def make_images(seed: int = 0) -> DistilledDataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return DistilledDataset.from_images(images, torch.arange(5).repeat_interleave(4), num_classes=5)


def write_stream(folder: Path, images: DistilledDataset, *, scale: float = 9.0) -> Path:
    """Two epochs of whole images in reverse order, labelled rightly, as G-VBSM writes them."""
    order = torch.arange(20).flip(0)
    for epoch in range(2):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        for number, indices in enumerate(order.split(8)):
            rows = len(indices)
            coords = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(rows, 1)
            logits = scale * torch.nn.functional.one_hot(images.labels[indices], 5) + epoch
            contents = [coords, torch.zeros(rows).bool(), None, None, None, logits.half(), indices]
            torch.save(contents, folder / f"epoch_{epoch}" / f"batch_{number}.tar")
    return folder


def test_batches_hold_normalised_images_with_their_logits(tmp_path: Path) -> None:
    images = make_images()
    stream = open_label_stream(write_stream(tmp_path / "s", images), images, normalization=NORMALIZATION)
    batches = list(stream.epoch(0))
    assert [len(labels) for _, _, labels in batches] == [8, 8, 4]
    inputs, logits, labels = batches[0]
    indices = torch.arange(19, 11, -1)
    torch.testing.assert_close(inputs, (images.images[indices] / 255 - 0.5) / 0.25)
    assert torch.equal(labels, images.labels[indices])
    assert torch.equal(logits, 9.0 * torch.nn.functional.one_hot(labels, 5))
    assert stream.nbytes > 0


def test_epochs_begin_again_after_the_last_one(tmp_path: Path) -> None:
    images = make_images()
    stream = open_label_stream(write_stream(tmp_path / "s", images), images, normalization=NORMALIZATION)
    lows = [float(next(iter(stream.epoch(number)))[1].min()) for number in range(4)]
    assert lows == [0, 1, 0, 1]


def test_packed_stream_is_the_same_as_its_files(tmp_path: Path) -> None:
    images = make_images()
    folder = write_stream(tmp_path / "s", images)
    packed = tmp_path / "packed.safetensors"
    pack_stream(FKDStream.open(folder, images), packed, dataset=images)
    one, two = (open_label_stream(p, images, normalization=NORMALIZATION) for p in (folder, packed))
    assert one.digest == two.digest
    for left, right in zip(one.epoch(1), two.epoch(1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_streams_of_other_logits_have_other_digests(tmp_path: Path) -> None:
    images = make_images()
    folders = [write_stream(tmp_path / name, images, scale=s) for name, s in (("a", 9.0), ("b", 8.0))]
    digests = {open_label_stream(f, images, normalization=NORMALIZATION).digest for f in folders}
    assert len(digests) == 2


def test_packed_stream_of_other_images_is_refused(tmp_path: Path) -> None:
    images = make_images()
    packed = tmp_path / "packed.safetensors"
    pack_stream(FKDStream.open(write_stream(tmp_path / "s", images), images), packed, dataset=images)
    with pytest.raises(LayoutError, match="images that .* was packed for"):
        open_label_stream(packed, make_images(seed=1), normalization=NORMALIZATION)


def test_missing_stream_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No stream of soft labels at `.*nowhere`"):
        open_label_stream(tmp_path / "nowhere", make_images(), normalization=NORMALIZATION)
