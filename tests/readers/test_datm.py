import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_layouts import Distilled, pixels, whitened, write_datm
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import load_dataset, save_dataset
from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError
from gift_cl.progress import silent
from gift_cl.readers.datm import DATMReader


def read(path: Path, reader: DATMReader | None = None, ipc: int | None = None) -> DistilledDataset:
    return (reader or DATMReader()).read(path, ipc=ipc, progress=silent)


@pytest.fixture
def made() -> Distilled:
    return whitened()


@pytest.fixture
def folder(tmp_path: Path, made: Distilled) -> Path:
    return write_datm(tmp_path / "datm", made.images, made.logits)


def bits(values: Tensor) -> bytes:
    return values.contiguous().numpy().tobytes()


@settings(max_examples=40, deadline=None)
@given(
    num_classes=st.integers(1, 12),
    ipc=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(2, 9),
    seed=st.integers(0, 999),
)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    num_classes: int,
    ipc: int,
    channels: int,
    height: int,
    width: int,
    seed: int,
) -> None:
    made = whitened(num_classes, ipc, shape=(channels, height, width), seed=seed)
    logits = made.logits.clone()
    logits[torch.arange(len(logits)), made.labels] += 4
    lr = torch.rand((), generator=torch.Generator().manual_seed(seed)) + 1e-6
    folder = write_datm(tmp_path_factory.mktemp("datm"), made.images, logits, lr)
    first = read(folder)
    save_dataset(first, folder / "own.safetensors")
    for dataset in (first, load_dataset(folder / "own.safetensors")):
        assert dataset.images.dtype == torch.float32
        assert bits(dataset.images) == bits(made.images)
        assert dataset.labels.tolist() == [row // ipc for row in range(num_classes * ipc)]
        assert dataset.soft_labels is not None
        assert dataset.soft_labels.num_views == 1
        assert bits(dataset.soft_labels.dense(dataset.labels, range(num_classes))) == bits(logits)
        assert dataset.learned_lr == float(lr)
        assert (dataset.space, dataset.num_classes, dataset.factor) == ("zca", num_classes, 1)
        assert dataset.encoded.codec == "float32"


def test_source_files_are_named_by_their_hashes(folder: Path) -> None:
    names = ("images_best.pt", "labels_best.pt", "lr_best.pt")
    provenance = read(folder).provenance
    assert provenance.method == "datm"
    assert provenance.hashes == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}
    assert provenance.teacher_classes == (0, 1, 2, 3)
    assert not provenance.oracle


def test_published_folder_names_say_the_source(tmp_path: Path, made: Distilled) -> None:
    write_datm(tmp_path / "logged_files/CIFAR10/3/ConvNet/run-7/Normal", made.images, made.logits)
    for path in (tmp_path, tmp_path / "logged_files/CIFAR10/3/ConvNet/run-7/Normal"):
        provenance = read(path).provenance
        assert (provenance.source, provenance.teacher) == ("CIFAR10", "expert trajectories of ConvNet")


@pytest.mark.parametrize("where", ["CIFAR10/10/ConvNet/run/Normal", "CIFAR10/3/ConvNet/run", "Normal"])
def test_other_folder_names_say_nothing(tmp_path: Path, made: Distilled, where: str) -> None:
    provenance = read(write_datm(tmp_path / where, made.images, made.logits)).provenance
    assert (provenance.source, provenance.teacher) == ("unknown", "expert trajectories")


def test_images_file_itself_may_be_given(folder: Path, made: Distilled) -> None:
    assert bits(read(folder / "images_best.pt").images) == bits(made.images)


def test_iteration_may_be_chosen(folder: Path) -> None:
    later = whitened(seed=1)
    write_datm(folder, later.images, later.logits, torch.tensor(0.5), tag=5000)
    reader, file = DATMReader(iteration=5000), folder / "images_5000.pt"
    for path, chosen in ((folder, reader), (file, reader), (file, None)):
        dataset = read(path, chosen)
        assert bits(dataset.images) == bits(later.images)
        assert dataset.learned_lr == 0.5
    assert read(folder).learned_lr == pytest.approx(0.02)


def test_relative_path_is_read_as_an_absolute_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert len(read(Path())) == 12
    assert len(read(Path("images_best.pt"))) == 12


@pytest.mark.parametrize(
    "wrap",
    [
        nn.Parameter,
        lambda t: t.clone().requires_grad_(),
        lambda t: t.double(),
        lambda t: t.transpose(0, 1).clone().transpose(0, 1),
    ],
    ids=["parameter", "requires_grad", "float64", "transposed"],
)
def test_tensors_may_be_saved_in_other_ways(
    tmp_path: Path, made: Distilled, wrap: Callable[[Tensor], Tensor]
) -> None:
    folder = write_datm(tmp_path, wrap(made.images), wrap(made.logits), wrap(torch.tensor([[0.25]])))
    dataset = read(folder)
    assert bits(dataset.images) == bits(made.images)
    assert not dataset.images.requires_grad
    assert dataset.learned_lr == 0.25


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_exactly(tmp_path: Path, made: Distilled, dtype: torch.dtype) -> None:
    images = made.images.to(dtype)
    assert bits(read(write_datm(tmp_path, images, made.logits)).images) == bits(images.float())


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_learning_rate_may_have_any_shape_of_one_number(folder: Path, shape: tuple[int, ...]) -> None:
    torch.save(torch.full(shape, 0.125), folder / "lr_best.pt")
    assert read(folder).learned_lr == 0.125


def test_pixels_are_read_where_the_option_says_so(tmp_path: Path, made: Distilled) -> None:
    images = pixels() / 255
    dataset = read(write_datm(tmp_path, images, made.logits), DATMReader(space="pixels"))
    assert dataset.space == "pixels"
    assert bits(dataset.images) == bits(images)


def test_progress_reaches_all_images(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    DATMReader().read(folder, ipc=None, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (12, 12)
    assert calls == sorted(calls)


def test_all_images_of_each_class_may_be_asked_for(folder: Path) -> None:
    assert len(read(folder, ipc=3)) == 12


def test_fewer_images_of_each_class_are_refused(folder: Path) -> None:
    with pytest.raises(
        LayoutError, match=r"to be all images of each class.*DATM optimises all images together"
    ):
        read(folder, ipc=2)


def test_more_images_of_each_class_are_refused(folder: Path) -> None:
    with pytest.raises(LayoutError, match=r"at least `ipc` = 4 images"):
        read(folder, ipc=4)


def test_no_images_of_each_class_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="`ipc` of at least 1, got 0"):
        read(folder, ipc=0)


# What it looks for.


@pytest.mark.parametrize("name", ["images_best.pt", "images_500.pt", "images_zca_500.pt"])
def test_images_are_recognized_by_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a/b" / name
    file.parent.mkdir(parents=True)
    file.touch()
    assert DATMReader().recognizes(file)
    assert DATMReader().recognizes(tmp_path)


@pytest.mark.parametrize(
    "name", ["data.pt", "images.pt", "images_best.pth", "my_images_best.pt", "labels_best.pt"]
)
def test_other_names_are_not_recognized(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert not DATMReader().recognizes(tmp_path / name)
    assert not DATMReader().recognizes(tmp_path)
    assert not DATMReader().recognizes(tmp_path / "missing")


def test_links_to_folders_are_not_followed(tmp_path: Path, made: Distilled) -> None:
    write_datm(tmp_path / "outside", made.images, made.logits)
    (tmp_path / "inside").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "inside/link")
    os.symlink(tmp_path / "inside", tmp_path / "inside/loop")
    assert not DATMReader().recognizes(tmp_path / "inside")
    with pytest.raises(LayoutError, match=r"Expected `images_best\.pt` of DATM in `.*inside`\."):
        read(tmp_path / "inside")


def test_folder_of_very_many_files_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gift_cl.readers.tensors._MOST_ENTRIES", 20)
    for index in range(21):
        (tmp_path / f"{index}.jpg").touch()
    assert not DATMReader().recognizes(tmp_path)
    with pytest.raises(LayoutError, match="at most 20 files and folders.*Give the folder"):
        read(tmp_path)


def test_folder_that_is_very_deep_is_not_searched_to_the_end(tmp_path: Path, made: Distilled) -> None:
    write_datm(tmp_path / "/".join("abcdefg"), made.images, made.logits)
    assert not DATMReader().recognizes(tmp_path)
    assert DATMReader().recognizes(tmp_path / "a")


# What it refuses.


def test_several_data_sets_are_listed(tmp_path: Path, made: Distilled) -> None:
    for name in ("one", "two"):
        write_datm(tmp_path / name, made.images, made.logits)
    with pytest.raises(LayoutError, match=r"one distilled data set .*got 2: .*one/images.*two/images"):
        read(tmp_path)


def test_iterations_are_listed_where_none_is_the_best(tmp_path: Path, made: Distilled) -> None:
    for tag in (500, 1000):
        write_datm(tmp_path, made.images, made.logits, tag=tag)
    with pytest.raises(LayoutError, match=r"`images_best\.pt` .* images_1000\.pt, images_500\.pt\. Choose"):
        read(tmp_path)


def test_file_of_another_iteration_is_refused(folder: Path) -> None:
    with pytest.raises(LayoutError, match=r"`images_7\.pt` .*got images_best\.pt"):
        read(folder / "images_best.pt", DATMReader(iteration=7))


@pytest.mark.parametrize("is_file", [False, True])
def test_images_with_the_whitening_undone_are_refused(tmp_path: Path, made: Distilled, is_file: bool) -> None:
    write_datm(tmp_path, made.images, made.logits, tag=500)
    os.rename(tmp_path / "images_500.pt", tmp_path / "images_zca_500.pt")
    with pytest.raises(LayoutError, match=r"images_zca_500\.pt` .*as they look, with the whitening undone"):
        read(tmp_path / "images_zca_500.pt" if is_file else tmp_path)


@pytest.mark.parametrize("name", ["labels_best.pt", "lr_best.pt"])
def test_missing_companion_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(LayoutError, match=rf"Expected `{name}` beside .*images_best\.pt`.*get all three"):
        read(folder)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"Expected `images_best\.pt` of DATM in `.*`\."):
        read(tmp_path)


def test_labels_of_another_file_are_found_at_chance(tmp_path: Path) -> None:
    made = whitened(10, 20)
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    write_datm(tmp_path, made.images, made.logits[shuffled])
    with pytest.raises(LayoutError, match=r"sorted by class, got .* only \d+% .*\(10% by chance\)"):
        read(tmp_path)


def test_rows_that_take_turns_are_refused(tmp_path: Path) -> None:
    made = whitened(10, 20)
    turns = torch.arange(200).view(10, 20).T.flatten()
    write_datm(tmp_path, made.images[turns], made.logits[turns])
    with pytest.raises(LayoutError, match="sorted by class"):
        read(tmp_path)


def test_half_of_the_labels_may_have_moved_away(tmp_path: Path) -> None:
    made = whitened(10, 20)
    logits = made.logits.clone()
    logits[::2] = logits[::2].roll(1, dims=1)
    write_datm(tmp_path, made.images, logits)
    assert read(tmp_path).labels.tolist() == made.labels.tolist()


IMAGES: dict[str, tuple[Callable[[Tensor], object], type[Exception], str]] = {
    "pixels": (lambda i: i.sigmoid(), LayoutError, r"negative values, got .*space=pixels"),
    "grey levels": (lambda i: i.sigmoid() * 255, LayoutError, "negative values, got values from .* to 2"),
    "nan": (lambda i: i.where(i < 2, torch.nan), DamagedFileError, "from nan to nan"),
    "inf": (lambda i: i.where(i < 2, torch.inf), DamagedFileError, "to inf"),
    "huge": (lambda i: i * 1e6, DamagedFileError, r"images in .* reach from .*e\+06"),
    "rounded": (lambda i: i.double() / 3, LayoutError, "float32 holds exactly, got float64"),
    "whole numbers": (lambda i: (i * 9).int(), LayoutError, "floating-point numbers .* got int32"),
    "two channels": (lambda i: i[:, :2], LayoutError, r"1 or 3 channels, got \(12, 2, 8, 8\)"),
    "channels last": (lambda i: i.permute(0, 2, 3, 1), LayoutError, "1 or 3 channels, got"),
    "rows": (lambda i: i.flatten(1), LayoutError, r"shape \(N, C, H, W\).*got \(12, 192\)"),
    "none": (lambda i: i[:0], LayoutError, r"got \(0, 3, 8, 8\)"),
    "list": (list, LayoutError, "as a tensor .*got list"),
    "dictionary": (lambda i: {"data": i}, LayoutError, "got dict"),
    "fewer": (lambda i: i[:11], LayoutError, r"shape \(11, C\), one row for each image, got \(12, 4\)"),
    "expanded": (lambda i: i[:1].clone().expand(12, -1, -1, -1), UnsafeFileError, "larger than its bytes"),
    "sparse": (lambda i: i.to_sparse(), UnsafeFileError, "more than dense tensors"),
}


@pytest.mark.parametrize("kind", list(IMAGES))
def test_images_that_cannot_be_are_refused(tmp_path: Path, made: Distilled, kind: str) -> None:
    change, error, message = IMAGES[kind]
    write_datm(tmp_path, change(made.images), made.logits)
    with pytest.raises(error, match=message):
        read(tmp_path)


LABELS: dict[str, tuple[Callable[[Tensor], object], type[Exception], str]] = {
    "hard": (lambda z: z.argmax(1), LayoutError, r"of shape \(12, C\).*got \(12,\)"),
    "fewer": (lambda z: z[:8], LayoutError, r"got \(8, 4\)"),
    "other classes": (lambda z: z[:, [0, 1, 2, 3, 0]], LayoutError, "got 12 images for 5 classes"),
    "no classes": (lambda z: z[:, :0], LayoutError, "got 12 images for 0 classes"),
    "probabilities": (lambda z: z.softmax(1), LayoutError, "rows that sum to 1, as probabilities do"),
    "nan": (lambda z: z * torch.nan, DamagedFileError, "soft labels in .* from nan to nan"),
    "huge": (lambda z: z * 1e5, DamagedFileError, "soft labels in .* reach from"),
    "whole numbers": (lambda z: (z * 9).long(), LayoutError, "soft labels in .* got int64"),
    "rounded": (lambda z: z.double() / 3, LayoutError, "soft labels in .* float32 holds exactly"),
    "upside down": (lambda z: z.flip(0), LayoutError, "sorted by class"),
    "list": (list, LayoutError, "got list"),
}


@pytest.mark.parametrize("kind", list(LABELS))
def test_labels_that_cannot_be_are_refused(tmp_path: Path, made: Distilled, kind: str) -> None:
    change, error, message = LABELS[kind]
    write_datm(tmp_path, made.images, change(made.logits))
    with pytest.raises(error, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("lr", "error", "message"),
    [
        (torch.tensor(0.0), DamagedFileError, r"positive learning rate in .*, got 0\.0"),
        (torch.tensor(-1.0), DamagedFileError, "positive"),
        (torch.tensor(torch.nan), DamagedFileError, "positive"),
        (torch.tensor(torch.inf), DamagedFileError, "positive"),
        (torch.ones(2), LayoutError, r"one learning rate in .*lr_best\.pt`, got \(2,\)"),
        (torch.ones(0), LayoutError, r"got \(0,\)"),
        (torch.tensor(True), LayoutError, r"one learning rate"),
        (0.02, LayoutError, r"got float"),
    ],
)
def test_learning_rate_that_cannot_be_is_refused(
    folder: Path, lr: object, error: type[Exception], message: str
) -> None:
    torch.save(lr, folder / "lr_best.pt")
    with pytest.raises(error, match=message):
        read(folder)


def test_whitened_images_are_refused_as_pixels(folder: Path) -> None:
    with pytest.raises(LayoutError, match=r"pixels in \[0, 1\] .*leave out .*images \* std \+ mean"):
        read(folder, DATMReader(space="pixels"))


def test_damaged_file_is_named(folder: Path) -> None:
    (folder / "labels_best.pt").write_bytes(b"<html>")
    with pytest.raises(DamagedFileError, match=r"labels_best\.pt` is no readable"):
        read(folder)


def test_spec_spells_the_options_out() -> None:
    assert DATMReader().spec == "datm"
    assert DATMReader(iteration=5000).spec == "datm:iteration=5000"
    assert DATMReader(iteration=0, space="pixels").spec == "datm:iteration=0,space=pixels"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iteration": -1}, "`iteration` as a number of at least 0, got -1"),
        ({"iteration": True}, "`iteration`"),
        ({"iteration": "best"}, "`iteration` .* got 'best'"),
        ({"space": "rgb"}, "`space` zca or pixels, got 'rgb'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DATMReader(**options)  # type: ignore[arg-type]
