from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gift_cl import DamagedFileError, DistilledDataset, LayoutError, load_dataset, save_dataset
from gift_cl.distillers import DISTILLERS
from gift_cl.distillers.protocol import Selection
from gift_cl.distilling import distill_dataset
from gift_cl.evaluation.claims import Claim, take_claim
from gift_cl.evaluation.labelling import seeded
from gift_cl.normalization import Normalization
from gift_cl.parts_folder import join_parts, save_or_explain
from gift_cl.progress import Progress, silent
from gift_cl.real_data import RealData
from gift_cl.soft_labels import SoftLabels
from gift_cl.teacher import Teacher

COUNTS = (4, 3, 5, 2, 4)  # training images of each class


@dataclass(frozen=True)
class Fake:
    """Random pixels plus the mean of the class, ten images through a network for each class."""

    spec: str = "fake"
    needs_teacher: bool = False
    classes_at_once: int | None = 2
    codec: None = None
    most: int = 100  # exemplars that a class gives
    calls: list[tuple[Tensor, Tensor, Teacher | None]] = field(default_factory=list)
    before: Callable[[int], None] = lambda label: None  # called with the first class

    def distill(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        per_class: int,
        num_classes: int,
        teacher: Teacher | None,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> DistilledDataset:
        self.before(int(labels.min()))
        self.calls.append((images, labels, teacher))
        classes = labels.unique()
        parts = []
        for label in classes:
            count = min(per_class, self.most)
            noise = torch.randint(0, 128, (count, *images.shape[1:]), generator=generator)
            made = noise + images[labels == label].double().mean().long() // 2
            parts.append(Selection(made.to(torch.uint8), label.expand(count).clone()))
        for step in (5, 10):
            progress(step * len(classes), 10 * len(classes))
        return Selection.join(parts).as_dataset(self, num_classes=num_classes, teacher=teacher)


@dataclass(frozen=True)
class FakeInPasses(Fake):
    """Two exemplars of each class at a time."""

    def passes(self, per_class: int, num_classes: int) -> list[int]:
        assert num_classes in (1, 2)
        return [2] * (per_class // 2) + [1] * (per_class % 2)


def make_data(seed: int = 0) -> RealData:
    """Classes of unequal size, mixed, in images of 3 x 4 x 4."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    images = torch.randint(0, 256, (len(labels), 3, 4, 4), dtype=torch.uint8, generator=generator)
    train = DistilledDataset.from_images(images, labels, num_classes=len(COUNTS))
    train = replace(train, class_names=tuple("abcde"))
    return RealData(name="fake", train=train, test=train)


DATA = make_data()


def make_teacher(bias: float = 0.0) -> Teacher:
    head = nn.Linear(48, len(COUNTS))
    nn.init.constant_(head.weight, 0.01)
    nn.init.constant_(head.bias, bias)
    model = nn.Sequential(nn.Flatten(), head)
    return Teacher(model, classes=range(len(COUNTS)), normalization=Normalization((0.5,), (0.25,)))


def distill(distiller: Any, **options: Any) -> DistilledDataset:
    made = distill_dataset(**({"data": DATA, "distiller": distiller, "ipc": 2} | options))
    assert made is not None
    return made


def content(dataset: DistilledDataset, folder: Path) -> bytes:
    save_dataset(dataset, folder / "content")
    return (folder / "content").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("at_once", "groups"), [(1, "a b c d e"), (2, "ab cd e"), (5, "abcde"), (9, "abcde"), (None, "abcde")]
)
def test_classes_are_made_in_groups_of_their_own_images(at_once: int | None, groups: str) -> None:
    fake = Fake(classes_at_once=at_once)
    made = distill(fake)
    assert made.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    by_first = sorted(fake.calls, key=lambda call: int(call[1].min()))
    seen = ["".join("abcde"[label] for label in labels.unique()) for _, labels, _ in by_first]
    assert seen == groups.split()
    for images, labels, _ in by_first:
        rows = [row for row, label in enumerate(DATA.train.labels) if label in labels]
        assert torch.equal(images, DATA.train.images[rows])
        assert torch.equal(labels, DATA.train.labels[rows])


def test_each_group_draws_from_the_seed_and_its_first_class() -> None:
    made = distill(Fake(), seed=7)
    for group, rows in (((0, 1), slice(0, 4)), ((2, 3), slice(4, 8)), ((4,), slice(8, 10))):
        own = torch.isin(DATA.train.labels, torch.tensor(group))
        alone = Fake().distill(
            DATA.train.images[own],
            DATA.train.labels[own],
            per_class=2,
            num_classes=5,
            teacher=None,
            generator=seeded(f"distill {group[0]}", 7),
        )
        assert torch.equal(made.images[rows], alone.images)


def test_another_seed_gives_others() -> None:
    assert not torch.equal(distill(Fake(), seed=0).images, distill(Fake(), seed=1).images)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    distill(Fake())
    assert torch.equal(torch.get_rng_state(), before)


def test_provenance_says_what_was_made_of_what() -> None:
    made = distill(Fake(needs_teacher=True), teacher=make_teacher(), seed=3)
    assert made.provenance.method == "fake"
    assert made.provenance.source == f"{DATA.train.provenance.source}, distilled with seed 3"
    assert set(made.provenance.hashes) == {"data", "teacher", "command"}
    assert made.class_names == tuple("abcde")
    assert set(distill(Fake()).provenance.hashes) == {"data", "command"}


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"ipc": 1},
        {"data": make_data(1)},
        {"distiller": Fake(spec="other", needs_teacher=True)},
        {"teacher": make_teacher(1.0)},
    ],
)
def test_the_hash_of_a_command_changes_with_each_part_of_it(changed: dict[str, Any]) -> None:
    settings = {"distiller": Fake(needs_teacher=True), "teacher": make_teacher()}
    first, second = (distill(**s).provenance.hashes["command"] for s in (settings, settings | changed))
    assert first != second


def test_a_method_that_needs_no_teacher_does_not_get_one() -> None:
    fake, teacher = Fake(), make_teacher()
    assert "teacher" not in distill(fake, teacher=teacher).provenance.hashes
    assert all(given is None for _, _, given in fake.calls)
    fake = Fake(needs_teacher=True)
    distill(fake, teacher=teacher)
    assert all(given is teacher for _, _, given in fake.calls)


def test_a_method_without_a_teacher_computes_on_the_device() -> None:
    device = torch.device("meta")

    def distill_on(images: Tensor, *arguments: Any, **options: Any) -> None:
        raise RuntimeError(images.device.type)

    fake = Fake()
    object.__setattr__(fake, "distill", distill_on)
    with pytest.raises(RuntimeError, match="meta"):
        distill(fake, device=device)


def test_progress_tells_what_is_left_by_what_was_done() -> None:
    """Groups of 2, 2 and 1 classes of ten images; the last class is the third group's."""
    told: list[tuple[int, int]] = []
    distill(Fake(), progress=lambda *numbers: told.append(numbers))
    assert told == [(10, 50), (20, 50), (30, 50), (40, 50), (45, 50), (50, 50)]


def test_progress_leaves_their_share_to_others(tmp_path: Path) -> None:
    """Rank 0 of 2 first sees 20 images of its own group, and half of the 30 of others."""
    told: list[tuple[int, int]] = []
    distill(Fake(), parts=tmp_path / "p", world_size=2, progress=lambda *numbers: told.append(numbers))
    assert told[0] == (10, 35)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_any_number_of_processes_makes_the_same(world_size: int, tmp_path: Path) -> None:
    expected = content(distill(Fake()), tmp_path)
    for rank in reversed(range(world_size)):
        made = distill_dataset(DATA, Fake(), ipc=2, parts=tmp_path / "p", rank=rank, world_size=world_size)
        assert (made is None) == (rank > 0)
    assert made is not None
    assert content(made, tmp_path) == expected


@pytest.mark.parametrize("rank", range(3))
def test_ranks_begin_with_shares_of_their_own(rank: int, tmp_path: Path) -> None:
    first: list[int] = []
    distill_dataset(DATA, Fake(before=first.append), ipc=2, parts=tmp_path / "p", rank=rank, world_size=3)
    assert first[0] == (2, 0, 4)[rank]  # the group of the rarest class, 3, is the first one


@dataclass
class Interrupted:
    """Lets so many groups pass."""

    after: int

    def __call__(self, label: int) -> None:
        if self.after == 0:
            raise KeyboardInterrupt
        self.after -= 1


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_was_finished_before_an_interruption_is_not_made_again(after: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        distill(Fake(before=Interrupted(after)), parts=tmp_path / "p")
    again = Fake()
    made = distill(again, parts=tmp_path / "p")
    assert len(again.calls) == 3 - after
    assert content(made, tmp_path) == content(distill(Fake()), tmp_path)


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    """SIGKILL leaves a claim and a begun group behind; both are taken over."""
    script = (
        "import test_distilling as t, time\n"
        f"t.distill(t.Fake(before=lambda label: label != 4 or time.sleep(60)), parts={str(tmp_path / 'p')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("p/*.safetensors"))) < 2 or len(list(tmp_path.glob("p/claims/*"))) < 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = Fake()
    made = distill(again, parts=tmp_path / "p")
    assert [sorted(labels.unique().tolist()) for _, labels, _ in again.calls] == [[4]]
    assert content(made, tmp_path) == content(distill(Fake()), tmp_path)


def test_parts_go_when_the_result_is_saved(tmp_path: Path) -> None:
    saved: list[DistilledDataset] = []

    def save(dataset: DistilledDataset) -> None:
        assert names(tmp_path / "p")[:2] == ["00000-00001.safetensors", "00002-00003.safetensors"]
        saved.append(dataset)

    made = distill(Fake(), parts=tmp_path / "p", save=save)
    assert len(saved) == 1
    assert saved[0] is made
    assert names(tmp_path) == []


def test_parts_stay_when_the_result_is_not_saved(tmp_path: Path) -> None:
    def fail(dataset: DistilledDataset) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        distill(Fake(), parts=tmp_path / "p", save=fail)
    again = Fake()
    distill(again, parts=tmp_path / "p")
    assert not again.calls
    assert names(tmp_path / "p")[-1] == "command.json"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "is of another command: its `seed` is 0, not 1. Finish that one, remove the folder"),
        ({"ipc": 1}, "its `ipc` is 2, not 1"),
        ({"data": make_data(1)}, "its `data` is '"),
        ({"distiller": Fake(spec="other")}, "its `method` is 'fake', not 'other'"),
        ({"distiller": Fake(needs_teacher=True), "teacher": make_teacher()}, "its `teacher` is None"),
    ],
)
def test_parts_of_another_command_are_refused_and_kept(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    distill(Fake(), parts=tmp_path / "p")
    before = names(tmp_path / "p")
    with pytest.raises(LayoutError, match=message):
        distill(**({"distiller": Fake()} | changed), parts=tmp_path / "p")
    assert names(tmp_path / "p") == before


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_description_of_the_command_is_refused(text: str, tmp_path: Path) -> None:
    distill(Fake(), parts=tmp_path / "p")
    (tmp_path / "p" / "command.json").write_text(text)
    with pytest.raises(LayoutError, match="is of another command"):
        distill(Fake(), parts=tmp_path / "p")


def test_parts_of_an_unknown_command_are_refused_and_kept(tmp_path: Path) -> None:
    distill(Fake(), parts=tmp_path / "p")
    (tmp_path / "p" / "command.json").unlink()
    with pytest.raises(LayoutError, match="holds 00000-00001.safetensors, and does not say of which command"):
        distill(Fake(), parts=tmp_path / "p")
    assert "00000-00001.safetensors" in names(tmp_path / "p")


def test_a_damaged_part_is_named_and_made_anew_once_it_is_removed(tmp_path: Path) -> None:
    expected = content(distill(Fake(), parts=tmp_path / "p"), tmp_path)
    part = tmp_path / "p" / "00002-00003.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    with pytest.raises(DamagedFileError, match="Remove `.*00002-00003.safetensors`, and start the same"):
        distill(Fake(), parts=tmp_path / "p")
    part.unlink()
    again = Fake()
    assert content(distill(again, parts=tmp_path / "p"), tmp_path) == expected
    assert len(again.calls) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [("q/00002-00003.safetensors", "of another command"), ("p/00000-00001.safetensors", "other exemplars")],
)
def test_a_part_in_the_wrong_place_is_refused(source: str, message: str, tmp_path: Path) -> None:
    distill(Fake(), parts=tmp_path / "p")
    distill(Fake(), parts=tmp_path / "q", seed=1)
    (tmp_path / "p" / "00002-00003.safetensors").write_bytes((tmp_path / source).read_bytes())
    with pytest.raises(DamagedFileError, match=message):
        distill(Fake(), parts=tmp_path / "p")


def hold(folder: Path, name: str) -> Claim:
    """What a living process has."""
    claim = take_claim(folder / "claims", name)
    assert isinstance(claim, Claim)
    return claim


def test_a_group_that_a_living_process_has_is_waited_for(tmp_path: Path) -> None:
    """It is made here when that process gives it back without having made it."""
    fake, said = Fake(), []
    with hold(tmp_path / "p", "00002-00003") as claim:

        def give_back(owners: Any) -> None:
            said.append([owner.pid for owner in owners])
            assert [labels.unique().tolist() for _, labels, _ in fake.calls] == [[0, 1], [4]]
            claim.__exit__(None, None, None)

        made = distill(fake, parts=tmp_path / "p", on_wait=give_back)
    assert said == [[os.getpid()]]
    assert content(made, tmp_path) == content(distill(Fake()), tmp_path)


def test_other_ranks_wait_for_nobody(tmp_path: Path) -> None:
    fake = Fake()
    with hold(tmp_path / "p", "00002-00003"):
        assert distill_dataset(DATA, fake, ipc=2, parts=tmp_path / "p", rank=1, world_size=2) is None
    assert len(fake.calls) == 2


def test_one_of_several_processes_joins_the_parts(tmp_path: Path) -> None:
    with hold(tmp_path / "p", "all"):
        assert distill_dataset(DATA, Fake(), ipc=2, parts=tmp_path / "p") is None
    assert distill(Fake(), parts=tmp_path / "p")


def test_a_process_that_another_has_overtaken_leaves_no_trace(tmp_path: Path) -> None:
    """While it waits for one group, the other process makes it, joins all parts, and removes them."""
    fake = Fake()
    with hold(tmp_path / "p", "00002-00003") as claim:

        def finish(owners: Any) -> None:
            claim.__exit__(None, None, None)
            distill(Fake(), parts=tmp_path / "p", save=lambda dataset: None)
            assert names(tmp_path) == []

        assert distill_dataset(DATA, fake, ipc=2, parts=tmp_path / "p", on_wait=finish) is None
    assert len(fake.calls) == 2
    assert names(tmp_path) == []


def test_a_rank_that_comes_when_all_is_over_does_nothing(tmp_path: Path) -> None:
    expected = distill(Fake()).provenance.hashes["command"]
    asked: list[str] = []

    def is_saved(digest: str) -> bool:
        asked.append(digest)
        return True

    fake, ranks = Fake(), {"rank": 1, "world_size": 2}
    made = distill_dataset(DATA, fake, ipc=2, parts=tmp_path / "p", is_saved=is_saved, **ranks)  # type: ignore[arg-type]
    assert (made, fake.calls, asked, names(tmp_path)) == (None, [], [expected], [])


def test_a_result_that_is_there_does_not_keep_ranks_from_work_that_has_begun(tmp_path: Path) -> None:
    distill(Fake(), parts=tmp_path / "p")
    (tmp_path / "p" / "00004-00004.safetensors").unlink()
    fake, ranks = Fake(), {"rank": 1, "world_size": 2}
    distill_dataset(DATA, fake, ipc=2, parts=tmp_path / "p", is_saved=lambda digest: True, **ranks)  # type: ignore[arg-type]
    assert len(fake.calls) == 1


@pytest.mark.parametrize("parts", [None, "p"])
def test_a_class_with_too_few_images_is_found_first(parts: str | None, tmp_path: Path) -> None:
    """Class d has two images; nothing is left behind."""
    method = DISTILLERS.create("random")
    folder = None if parts is None else tmp_path / parts
    with pytest.raises(ValueError, match="Expected at most 2 for `ipc`, as many as `random`.*`d`, got 3"):
        distill(method, ipc=3, parts=folder)
    assert names(tmp_path) == []


def test_random_takes_images_of_the_class() -> None:
    made = distill(DISTILLERS.create("random"))
    for image, label in zip(made.images, made.labels, strict=True):
        own = DATA.train.images[DATA.train.labels == label]
        assert any(torch.equal(image, other) for other in own)


def test_the_codec_of_a_distiller_is_kept() -> None:
    class Encoding(Fake):
        def distill(self, *arguments: Any, **options: Any) -> DistilledDataset:
            made = super().distill(*arguments, **options)
            again = DistilledDataset.from_images(
                made.images, made.labels, num_classes=5, codec="downscale:2", provenance=made.provenance
            )
            return again

    made = distill(Encoding())
    assert made.encoded.codec == "downscale:2"
    assert made.encoded.nbytes == 10 * 3 * 2 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ipc": 0}, "Expected `ipc` of at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, r"Expected `rank` in \[0, 2\), got 2"),
        ({"distiller": Fake(needs_teacher=True)}, "`fake` needs a teacher"),
    ],
)
def test_unusable_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distill(**({"distiller": Fake()} | options))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Cannot write into `.*file.*`"):
        distill(Fake(), parts=tmp_path / "file" / "p")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(
        OSError, match=r"Cannot write `.*part`: No space left on device\..* is kept: start the same command"
    ):
        save_or_explain(distill(Fake()), tmp_path / "part")


def part_of(label: int, *, soft: bool = True, **changes: Any) -> DistilledDataset:
    """Two images of a class, with logits of two views for classes 0 to ``label``."""
    labels = torch.full((2,), label)
    images = torch.full((2, 1, 2, 2), label, dtype=torch.uint8)
    made = DistilledDataset.from_images(images, labels, num_classes=3)
    if soft:
        logits = 10.0 * label + torch.arange(12.0).view(2, 2, 3)
        covered = {label: tuple(range(label + 1))}
        views = torch.full((2, 2, 1), label, dtype=torch.int8)
        made = replace(made, soft_labels=SoftLabels.from_logits(logits, labels, covered, views=views))
    return replace(made, **changes)


def test_soft_labels_are_joined() -> None:
    parts = [part_of(0), part_of(1), part_of(2)]
    joined = join_parts(parts)
    soft = joined.soft_labels
    assert soft is not None
    assert soft.views is not None
    assert soft.views.flatten().tolist() == [0] * 4 + [1] * 4 + [2] * 4
    dense = soft.dense(joined.labels, range(3))
    for rows, part in zip(torch.arange(6).split(2), parts, strict=True):
        assert part.soft_labels is not None
        own = part.soft_labels.dense(part.labels, range(3))
        torch.testing.assert_close(dense[rows], own, equal_nan=True, rtol=0, atol=0)


def test_a_normalization_that_parts_do_not_share_is_left_out() -> None:
    one, two = Normalization((0.5,), (0.5,)), Normalization((0.25,), (0.5,))
    assert join_parts([part_of(0, normalization=one), part_of(1, normalization=one)]).normalization == one
    assert join_parts([part_of(0, normalization=one), part_of(1, normalization=two)]).normalization is None


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (part_of(1, factor=2), "Expected parts of one `factor`, got"),
        (part_of(1, learned_lr=0.5), "Expected parts of one `learned_lr`"),
        (part_of(1, soft=False), "Expected parts with soft labels of equally many views"),
    ],
)
def test_parts_of_different_kinds_are_not_joined(second: DistilledDataset, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_parts([part_of(0), second])


def test_passes_are_parts_and_come_together_class_after_class(tmp_path: Path) -> None:
    made = distill(FakeInPasses(), ipc=5, parts=tmp_path / "p")
    files = sorted(path.stem for path in (tmp_path / "p").glob("*.safetensors"))
    groups = ("00000-00001", "00002-00003", "00004-00004")
    assert files == [
        name for group in groups for name in (group, f"{group}-from-00002", f"{group}-from-00004")
    ]
    assert made.labels.tolist() == torch.arange(5).repeat_interleave(5).tolist()
    for label in range(5):
        first, second, third = (
            load_dataset(tmp_path / "p" / f"{file}.safetensors")
            for file in files[3 * (label // 2) : 3 * (label // 2) + 3]
        )
        assert (len(first), len(third)) == (2 * len(third), len(first) // 2)
        own = torch.cat([part.images[part.labels == label] for part in (first, second, third)])
        assert torch.equal(made.images[5 * label : 5 * label + 5], own)
        assert len(own.flatten(1).unique(dim=0)) == 5  # each pass draws anew
    assert content(made, tmp_path) == content(distill(FakeInPasses(), ipc=5), tmp_path)


def test_passes_that_were_finished_are_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        distill(FakeInPasses(before=Interrupted(4)), ipc=5, parts=tmp_path / "p")
    again = FakeInPasses()
    made = distill(again, ipc=5, parts=tmp_path / "p")
    assert len(again.calls) == 9 - 4
    assert content(made, tmp_path) == content(distill(FakeInPasses(), ipc=5), tmp_path)


def test_progress_counts_passes_by_their_exemplars() -> None:
    """Of two classes, two, two and one exemplars, of three groups of 2, 2 and 1 classes."""
    told: list[tuple[int, int]] = []
    distill(FakeInPasses(), ipc=5, progress=lambda *numbers: told.append(numbers))
    assert told[0] == (10, 20 + round(20 * (25 - 4) / 4))
    assert told[-1][0] == told[-1][1]


def test_parts_are_files_of_their_own(tmp_path: Path) -> None:
    made = distill(Fake(), parts=tmp_path / "p")
    assert names(tmp_path / "p") == [
        *("00000-00001.safetensors", "00002-00003.safetensors", "00004-00004.safetensors"),
        *("claims", "command.json"),
    ]
    part = load_dataset(tmp_path / "p" / "00002-00003.safetensors")
    assert torch.equal(part.images, made.images[4:8])
    assert part.provenance == made.provenance
