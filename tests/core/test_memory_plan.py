from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_cl.codecs import EncodedImages
from gift_cl.ledger import BudgetError
from gift_cl.memory import ExemplarMemory
from gift_cl.memory_plan import Plan, ranks, share

supplies = st.lists(st.integers(0, 20), min_size=1, max_size=8)


def reference_share(total: int, available: list[int]) -> list[int]:
    """One at a time, to a class that has fewest and can have more; the first of them."""
    counts = [0] * len(available)
    for _ in range(min(total, sum(available))):
        can = [i for i, n in enumerate(available) if counts[i] < n]
        counts[min(can, key=lambda i: (counts[i], i))] += 1
    return counts


@given(st.integers(0, 200), supplies)
def test_shares_are_dealt_out_one_by_one(total: int, available: list[int]) -> None:
    assert share(total, available) == reference_share(total, available)


@given(st.integers(0, 200), supplies)
def test_shares_are_complete_within_the_supply_and_even(total: int, available: list[int]) -> None:
    counts = share(total, available)
    assert sum(counts) == min(total, sum(available))
    assert all(count <= n for count, n in zip(counts, available, strict=True))
    most = max(counts)
    assert all(count == n or count >= most - 1 for count, n in zip(counts, available, strict=True))


@given(st.integers(0, 200), supplies)
def test_one_more_takes_nothing_from_anybody(total: int, available: list[int]) -> None:
    before, after = share(total, available), share(total + 1, available)
    assert all(a <= b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("total", "available", "expected"),
    [
        (7, [5, 1, 5], [3, 1, 3]),
        (8, [5, 5, 5], [3, 3, 2]),
        (0, [3, 3], [0, 0]),
        (9, [2, 0, 3], [2, 0, 3]),
        (5, [], []),
    ],
)
def test_pinned_shares(total: int, available: list[int], expected: list[int]) -> None:
    assert share(total, available) == expected


@given(st.lists(st.integers(0, 4), max_size=30))
def test_ranks_count_within_each_class(labels: list[int]) -> None:
    expected = [labels[:i].count(label) for i, label in enumerate(labels)]
    assert ranks(torch.tensor(labels, dtype=torch.int64)).tolist() == expected


def make_encoded(sizes: list[int], shared: int) -> EncodedImages:
    return EncodedImages.from_streams("png", (1, 8, 8), [bytes(n) for n in sizes], shared=bytes(shared))


@settings(deadline=None)
@given(
    exemplars=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=4, max_size=40),
    shared=st.integers(0, 40),
    budget=st.integers(1, 1500),
)
def test_a_fit_is_the_largest_balanced_one(
    exemplars: list[tuple[int, int]], shared: int, budget: int
) -> None:
    labels = torch.tensor([label for label, _ in exemplars])
    classes = tuple(dict.fromkeys(label for label, _ in exemplars))
    sizes = [size for _, size in exemplars]
    groups = [[i for i, (label, _) in enumerate(exemplars) if label == c] for c in classes]
    supply = [len(group) for group in groups]

    def cost(total: int) -> int:  # 2 bytes for a length, 1 for a label
        counts = reference_share(total, supply)
        chosen = [i for group, n in zip(groups, counts, strict=True) for i in group[:n]]
        return shared + sum(sizes[i] + 3 for i in chosen)

    plan = Plan(ExemplarMemory(budget_bytes=budget), classes, 4, None, new=classes)
    fitting = [total for total in range(len(sizes) + 1) if cost(total) <= budget]
    if not fitting or fitting[-1] < len(classes):
        with pytest.raises(BudgetError, match=f"at least {cost(len(classes))} for one exemplar of each"):
            plan.fit(make_encoded(sizes, shared), labels)
        return
    counts = reference_share(fitting[-1], supply)
    expected = [i for group, n in zip(groups, counts, strict=True) for i in group[:n]]
    assert plan.fit(make_encoded(sizes, shared), labels).tolist() == expected


def make_plan(**options: Any) -> Plan:
    memory = ExemplarMemory(**({"budget_bytes": 65 * 20} | options))
    return Plan(memory, (0, 1), 2, None, new=(0, 1))


IMAGES = torch.zeros(100, 1, 8, 8, dtype=torch.uint8)


def test_equal_sizes_need_no_reserve() -> None:
    assert make_plan().estimate_per_class(IMAGES, {}) == (11, 11)  # ten fit, and one is left over


def test_a_class_with_few_images_leaves_more_to_the_others() -> None:
    assert make_plan().estimate_per_class(IMAGES, {0: 3}) == (18, 18)
    least, _ = make_plan().estimate_per_class(IMAGES, {0: 3, 1: 4})
    assert least > 4


def test_files_of_different_sizes_need_a_reserve() -> None:
    least, asked = make_plan(codec="webp:75").estimate_per_class(IMAGES, {})
    assert 10 < least < asked


def test_a_teacher_larger_than_the_budget_leaves_nothing() -> None:
    plan = make_plan()
    plan.teacher_bytes = 1_000_000
    assert plan.estimate_per_class(IMAGES, {}) == (1, 1)
    with pytest.raises(BudgetError, match=r"\(1000000 of it shared, 1000000 of that a teacher\), got 1300"):
        plan.fit(make_encoded([10, 10], 0), torch.tensor([0, 1]))
