import pytest
import torch

from gift_cl import Teacher, UnseenClassError
from gift_cl.models import build_model, penultimate
from gift_cl.real_data import RealData, load_real_data, real_exemplars
from gift_cl.teacher import as_float


@pytest.fixture(scope="module")
def digits() -> RealData:
    return load_real_data("digits")


def make_teacher(classes: range = range(10)) -> Teacher:
    torch.manual_seed(0)
    return Teacher(build_model("mlp", in_channels=1, image_size=8, num_classes=10), classes=classes)


def test_random_exemplars_are_training_images_of_their_class(digits: RealData) -> None:
    made = real_exemplars(digits, ipc=3)
    assert made.labels.tolist() == [label for label in range(10) for _ in range(3)]
    pairs = zip(digits.train.images.numpy(), digits.train.labels.tolist(), strict=True)
    known = {(image.tobytes(), label) for image, label in pairs}
    chosen = [
        (i.tobytes(), label) for i, label in zip(made.images.numpy(), made.labels.tolist(), strict=True)
    ]
    assert known.issuperset(chosen)
    assert len(set(chosen)) == 30


def test_random_exemplars_depend_on_the_seed_alone(digits: RealData) -> None:
    torch.manual_seed(1)
    first = real_exemplars(digits, ipc=3, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first.images, real_exemplars(digits, ipc=3, seed=5).images)
    assert not torch.equal(first.images, real_exemplars(digits, ipc=3, seed=6).images)


def test_the_first_herded_exemplar_is_nearest_to_the_mean_feature_of_its_class(digits: RealData) -> None:
    teacher = make_teacher()
    made = real_exemplars(digits, "herding", ipc=1, teacher=teacher)
    for label in range(10):
        images = digits.train.images[digits.train.labels == label]
        features = torch.nn.functional.normalize(penultimate(teacher.model, as_float(images)), dim=1)
        nearest = (features - features.mean(0)).norm(dim=1).argmin()
        assert torch.equal(made.images[label], images[nearest])


def test_exemplars_say_where_they_come_from(digits: RealData) -> None:
    made = real_exemplars(digits, "herding", ipc=1, teacher=make_teacher())
    assert (made.provenance.method, made.provenance.teacher) == ("herding", "MLP")
    assert made.provenance.source == "train images of scikit-learn"
    assert made.class_names == tuple("0123456789")


def test_other_distillers_are_chosen_by_their_spec(digits: RealData) -> None:
    made = real_exemplars(digits, "rded:crops=2", ipc=2, teacher=make_teacher())
    assert made.provenance.method.startswith("rded:factor=1,crops=2")
    assert len(made) == 20


def test_more_exemplars_than_images_are_refused(digits: RealData) -> None:
    fewest = min(digits.train.images_per_class.values())
    assert len(real_exemplars(digits, ipc=fewest)) == 10 * fewest
    with pytest.raises(ValueError, match=rf"Expected at most {fewest} for `ipc`, .* got {fewest + 1}"):
        real_exemplars(digits, ipc=fewest + 1)


def test_no_exemplars_are_refused(digits: RealData) -> None:
    with pytest.raises(ValueError, match="`per_class` of at least 1, got 0"):
        real_exemplars(digits, ipc=0)


def test_a_method_that_needs_a_teacher_says_so(digits: RealData) -> None:
    with pytest.raises(ValueError, match="`herding` needs a teacher"):
        real_exemplars(digits, "herding", ipc=1)


def test_a_teacher_that_has_not_seen_a_class_is_refused(digits: RealData) -> None:
    with pytest.raises(UnseenClassError, match=r"not \[8, 9\]"):
        real_exemplars(digits, "herding", ipc=1, teacher=make_teacher(range(8)))


def test_an_unknown_method_lists_the_known_ones(digits: RealData) -> None:
    with pytest.raises(ValueError, match=r"Unknown distiller `best`. Known: random, herding, coverage, rded"):
        real_exemplars(digits, "best", ipc=1)
