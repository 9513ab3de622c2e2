import pickle
from pathlib import Path

import pytest
import torch
from fkd_folders import Kind, batch_path, make_dataset, replay_by_hand, write_fkd
from torch.utils.data import DataLoader

from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import open_dataset, save_dataset
from gift_cl.errors import LayoutError
from gift_cl.label_streams import FKDStream, ReplayedBatch, StreamedBatches, open_stream, pack_stream
from gift_cl.normalization import Normalization

DATASET = make_dataset()
NORM = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def equal(first: ReplayedBatch, second: ReplayedBatch) -> bool:
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.fixture
def stream(tmp_path: Path) -> FKDStream:
    write_fkd(tmp_path / "labels", DATASET)
    return FKDStream.open(tmp_path / "labels", DATASET)


@pytest.fixture
def batches(stream: FKDStream) -> StreamedBatches:
    return StreamedBatches(stream, DATASET, normalization=NORM)


@pytest.mark.parametrize("kind", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 8, 8), 8), ((3, 32, 32), 32), ((3, 33, 20), 24), ((3, 16, 16), 64), ((1, 9, 9), 9)],
)
def test_images_are_the_published_ones_to_the_last_bit(
    tmp_path: Path, kind: Kind, shape: tuple[int, int, int], size: int
) -> None:
    dataset = make_dataset(shape=shape)
    written = write_fkd(tmp_path, dataset, epochs=1, kind=kind, size=size, has_indices=True)
    stream = FKDStream.open(tmp_path, dataset, size=size)
    mean, std = NORM.mean[: shape[0]], NORM.std[: shape[0]]
    batches = StreamedBatches(stream, dataset, normalization=Normalization(mean, std))
    assert len(batches) == 3
    for number, elements in enumerate(written[0]):
        expected = replay_by_hand(dataset, elements, elements[6], size=size, mean=mean, std=std)
        assert torch.equal(batches[number].images, expected)


def test_logits_and_labels_go_with_the_images(tmp_path: Path) -> None:
    (files,) = write_fkd(tmp_path, DATASET, epochs=1, has_indices=True)
    batches = StreamedBatches(FKDStream.open(tmp_path, DATASET), DATASET, normalization=None)
    for number, elements in enumerate(files):
        batch = batches[number]
        assert (batch.images.dtype, batch.logits.dtype) == (torch.float32, torch.float32)
        assert torch.equal(batch.logits, elements[5].float())
        assert torch.equal(batch.labels, elements[6] // 4)  # four images a class


def test_pixels_are_in_0_to_1_without_a_normalisation(stream: FKDStream, batches: StreamedBatches) -> None:
    plain = StreamedBatches(stream, DATASET, normalization=None)[1].images
    assert 0 <= float(plain.min()) < float(plain.max()) <= 1
    torch.testing.assert_close(NORM.apply(plain), batches[1].images)


def test_the_loader_keeps_the_published_order(batches: StreamedBatches) -> None:
    found = list(batches.loader([1, 0]))
    assert len(found) == 6
    for batch, number in zip(found, [3, 4, 5, 0, 1, 2], strict=True):
        assert equal(batch, batches[number])


def test_workers_change_nothing(batches: StreamedBatches) -> None:
    alone, helped = list(batches.loader(range(2))), list(batches.loader(range(2), workers=2))
    assert len(alone) == len(helped) == 6
    assert all(equal(*pair) for pair in zip(alone, helped, strict=True))


def test_torchs_own_loader_may_shuffle_the_batches(batches: StreamedBatches) -> None:
    loader: DataLoader[ReplayedBatch] = DataLoader(batches, batch_size=None, shuffle=True)
    assert sorted(len(batch.labels) for batch in loader) == [4, 4, 8, 8, 8, 8]


def test_batches_go_to_another_process(batches: StreamedBatches) -> None:
    assert equal(pickle.loads(pickle.dumps(batches))[4], batches[4])


def test_images_that_stay_in_their_file_are_the_same(
    tmp_path: Path, stream: FKDStream, batches: StreamedBatches
) -> None:
    save_dataset(DATASET, tmp_path / "images")
    mapped = StreamedBatches(stream, open_dataset(tmp_path / "images"), normalization=NORM, in_memory=False)
    assert all(equal(mapped[number], batches[number]) for number in range(6))


def test_a_packed_stream_is_replayed_alike(
    tmp_path: Path, stream: FKDStream, batches: StreamedBatches
) -> None:
    pack_stream(stream, tmp_path / "packed", dataset=DATASET)
    packed = StreamedBatches(open_stream(tmp_path / "packed"), DATASET, normalization=NORM)
    assert all(equal(packed[number], batches[number]) for number in range(6))


def test_an_epoch_that_is_not_stored_is_refused_or_begins_again(batches: StreamedBatches) -> None:
    for epoch in (2, -1):
        with pytest.raises(ValueError, match=rf"in \[0, 2\), since 2 are stored, got {epoch}.*`wrap=True`"):
            batches.loader([0, epoch])
    wrapped = list(batches.loader([3], wrap=True))
    assert all(equal(batch, batches[number]) for batch, number in zip(wrapped, [3, 4, 5], strict=True))


@pytest.mark.parametrize(
    "other",
    [
        make_dataset(per_class=3),
        make_dataset(num_classes=4, per_class=5),
        DATASET.reordered([1, 0, 2, 3, 4]),
        DistilledDataset(encoded=DATASET.encoded, labels=DATASET.labels, num_classes=6),
    ],
    ids=["fewer images", "fewer classes", "class order", "unused class"],
)
def test_another_data_set_is_refused(stream: FKDStream, other: DistilledDataset) -> None:
    with pytest.raises(LayoutError, match="FKD files of `labels`.*with other labels"):
        StreamedBatches(stream, other, normalization=None)


def test_images_of_another_kind_are_refused(stream: FKDStream) -> None:
    two = make_dataset(shape=(2, 8, 8))
    with pytest.raises(TypeError, match="1 or 3 channels, got torch.uint8 and 2"):
        StreamedBatches(stream, two, normalization=None)
    floats = DistilledDataset.from_images(
        DATASET.images.float() / 255, DATASET.labels, num_classes=5, codec="float32"
    )
    with pytest.raises(TypeError, match="got torch.float32 and 3"):
        StreamedBatches(stream, floats, normalization=None)


def test_a_crop_without_a_pixel_is_refused(tmp_path: Path) -> None:
    ((elements, *_),) = write_fkd(tmp_path, DATASET, epochs=1)
    elements[0][2] = torch.tensor([0.5, 0.5, 0.01, 0.5])
    torch.save(elements, batch_path(tmp_path))
    batches = StreamedBatches(FKDStream.open(tmp_path, DATASET), DATASET, normalization=None)
    message = "Batch 0 of epoch 0 does not fit the images.*rows 4 to 4.*8 x 8 pixels.*made from larger images"
    with pytest.raises(LayoutError, match=message):
        batches[0]


def test_edges_of_crops_are_rounded_as_pil_rounds_them(tmp_path: Path) -> None:
    ((elements, *_),) = write_fkd(tmp_path, DATASET, epochs=1, kind="none", has_indices=True)
    halves = torch.tensor([2.5, 3.5, 1.0, 3.0]) / 8  # to rows 2 to 4 and columns 4 to 6, halves to even
    elements[0][:] = halves
    torch.save(elements, batch_path(tmp_path))
    batches = StreamedBatches(FKDStream.open(tmp_path, DATASET), DATASET, normalization=NORM)
    expected = replay_by_hand(DATASET, elements, elements[6], size=8, mean=NORM.mean, std=NORM.std)
    assert torch.equal(batches[0].images, expected)


def test_the_global_generator_is_not_touched(batches: StreamedBatches) -> None:
    before = torch.get_rng_state()
    list(batches.loader(range(2)))
    assert torch.equal(torch.get_rng_state(), before)
