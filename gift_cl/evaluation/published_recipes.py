"""The recipes of papers, for each data set and student.

What a paper and its code leave open is marked as such, with the choice made.
"""

from __future__ import annotations

from gift_cl.evaluation.case import Case
from gift_cl.evaluation.recipe import Recipe


def gift(case: Case) -> Recipe:
    """The one recipe of GIFT for all methods.

    300 epochs on ImageNet-1K and 1000 elsewhere; AdamW, at 1e-4 for Swin and ViT; a random cell of a mosaic
    for RDED on ImageNet-1K with ResNet-18 alone. DATM's images come with stored labels. With SGD the sister
    evaluator LINs-lab/CIM has, commented out, lr 0.01, momentum 0.9 and weight decay 5e-4.

    Source:
        Shang, Sun and Lin, GIFT, ICLR 2025; LINs-lab/GIFT@38db552. Deliberate differences: DATM's whitened
        images are not normalised again (theirs are in training, and not in the test). They report
        the best of the four measurements on the test set.
    """
    is_mosaic = (case.method, case.dataset, case.model) == ("rded", "imagenet-1k", "resnet18")
    return Recipe(
        epochs=300 if case.dataset == "imagenet-1k" else 1000,
        batch_size="auto",
        optimizer="AdamW",
        lr=1e-4 if case.student in ("swin_v2_t", "vit_b_16") else 1e-3,
        weight_decay=1e-4,
        decay_all=True,
        schedule="multistep",
        view=f"factor_crop:{case.factor} | dsa" if is_mosaic and case.factor > 1 else "dsa",
        loss="gift",
        labels="stored" if case.method == "datm" else "online",
        normalization=case.normalization_of(_CIFAR | _IMAGENET | {"tinyimagenet": "imagenet"}),
        evaluations=4,
    )


def sre2l(case: Case) -> Recipe:
    """The recipes of SRe2L: for Tiny-ImageNet, for ImageNet and its subsets, and for CIFAR-100.

    Labels come from a teacher at each step, as in their ``train_KD.py``; the published stream of
    ImageNet-1K has the same views and is chosen with ``labels="stream"``. Not published, and chosen: the
    recipe of ImageNet-1K for its subsets, and that of CIFAR-100 for everything else.

    Source:
        Yin et al., SRe2L, NeurIPS 2023; VILA-Lab/SRe2L@8d00cba (train, relabel_cifar), and
        zeyuanyin/tiny-imagenet@275c667 (Tiny-ImageNet). They measure every 10 epochs (ImageNet-1K),
        every epoch (Tiny) or once (CIFAR-100), and report the best, both, and the last.
    """
    normalization = case.normalization_of(_CIFAR | _IMAGENET | {"tinyimagenet": "tiny"})
    if case.dataset == "tinyimagenet":
        return Recipe(
            epochs=100,
            batch_size=256,
            optimizer="SGD",
            lr=0.2,
            momentum=0.9,
            weight_decay=1e-4,
            decay_all=True,
            schedule="warmup:epochs=5,start=0.01 | cosine",
            view="rrc:min_scale=0.08 | flip",
            loss="kl:temperature=20,t2=true",
            normalization=normalization,
            evaluations=100,
        )
    if case.dataset in _IMAGENET:
        return Recipe(
            epochs=300,
            batch_size=1024,
            optimizer="AdamW",
            lr=1e-3,
            weight_decay=0.01,
            decay_all=False,
            schedule="cosine",
            view="rrc:min_scale=0.08 | flip",
            mix="cutmix:alpha=1.0",
            loss="kl:temperature=20",
            normalization=normalization,
            evaluations=30,
        )
    return Recipe(
        epochs=400,
        batch_size=128,
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=0.01,
        decay_all=True,
        schedule="cosine",
        view="crop_flip:pad=4",
        mix="mixup:alpha=0.8",
        loss="kl:temperature=30",
        normalization=normalization,
        evaluations=1,
    )


def cda(case: Case) -> Recipe:
    """The recipes of SRe2L, which CDA says to follow.

    Not published, and chosen: the batch size of ImageNet-1K, for which SRe2L's stands.

    Source:
        Yin and Shen, CDA, TMLR 2024; VILA-Lab/SRe2L@8d00cba, folder CDA, which has no code for this;
        zeyuanyin/tiny-imagenet@275c667 (Tiny-ImageNet).
    """
    return sre2l(case)


def rded(case: Case) -> Recipe:
    """The recipe of RDED.

    Mosaics of factor 1 are only flipped: the crop of theirs is then the whole image. Not published, and
    chosen: learning rates of other students, for which 1e-3 stands, and batch sizes of other IPCs, which
    are those of the next larger IPC.

    Source:
        Sun et al., RDED, CVPR 2024; LINs-lab/RDED@3f6453d. Deliberate differences: they run the student a
        second time in each step, which updates the statistics of its batch norms twice; they measure in the
        last fifth only, every 10 epochs, and report the best.
    """
    is_conv3 = case.dataset == "cifar100" and case.model.partition(":")[0] == case.student == "conv3"
    shuffle = f"shuffle_patches:{case.factor} | rrc:min_scale={1 / case.factor} | flip"
    return Recipe(
        epochs=300,
        batch_size=25 if is_conv3 else _rded_batch_size(case),
        optimizer="AdamW",
        lr=2e-3 if is_conv3 else _RDED_RATES.get(case.student, 1e-3),
        weight_decay=0.01,
        decay_all=False,
        schedule="half_cosine",
        view=shuffle if case.factor > 1 else "flip",
        mix="cutmix:alpha=1.0",
        loss="kl:temperature=20",
        normalization=case.normalization_of(dict.fromkeys((*_CIFAR, "tinyimagenet", *_IMAGENET), "imagenet")),
        evaluations=30,
    )


def datm(case: Case) -> Recipe:
    """The recipe of DATM, whose learning rate comes with the images.

    The labels belong to the image: each view of it has the same. Students have instance norm, as
    ``conv3:norm=instance`` does.

    Source:
        Guo et al., DATM, ICLR 2024; NUS-HPC-AI-Lab/DATM@97ae510, distill/evaluation.py. Deliberate
        differences: their loop runs one epoch more, and see `gift_cl.evaluation.schedules.Step`.

    Raises:
        ValueError: If there is no learned learning rate.
    """
    if case.learned_lr is None:
        raise ValueError(
            "Expected a `learned_lr` for the preset `datm`, which DATM distils with the images, got none. "
            "Give `lr`."
        )
    return Recipe(
        epochs=1000,
        batch_size=128,
        optimizer="SGD",
        lr=case.learned_lr,
        momentum=0.9,
        weight_decay=5e-4,
        decay_all=True,
        schedule="step:at=0.5,factor=0.1",
        view="dsa:form=one",
        loss="softce",
        labels="stored",
        normalization=case.normalization_of(_CIFAR | _IMAGENET | {"tinyimagenet": "imagenet"}),
        evaluations=1,
    )


def gvbsm(case: Case) -> Recipe:
    """The recipes of G-VBSM: mean squared error on logits, and a share of cross-entropy.

    The cross-entropy takes the hard label of a view's own image, even where it is mixed. Their labels are
    the mean of four or five teachers, stored as a stream; the teacher of each step may be such an
    ensemble. Not published, and chosen: the recipe of ImageNet-1K for its subsets, and that of
    CIFAR-100 for everything else.

    Source:
        Shao et al., G-VBSM, CVPR 2024; shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0. They measure every
        10 epochs and report the best.
    """
    is_imagenet = case.dataset in _IMAGENET
    uses_adamw = is_imagenet or case.dataset == "cifar10"
    epochs, batch_size, ce_weight = _GVBSM.get(
        "imagenet" if is_imagenet else case.dataset, _GVBSM["cifar100"]
    )
    others = dict.fromkeys((*_IMAGENET, "tinyimagenet"), "imagenet")
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer="AdamW" if uses_adamw else "SGD",
        lr=1e-3 if uses_adamw else 0.1,
        momentum=0.9,
        weight_decay=0.01 if is_imagenet else 0.0 if uses_adamw else 5e-4,
        decay_all=False,
        schedule="cosine",
        view="rrc:min_scale=0.08 | flip",
        mix="cutmix:alpha=1.0",
        hard_label="own",
        loss=f"mse_ce:ce_weight={ce_weight}",
        normalization=case.normalization_of(dict.fromkeys(_CIFAR, "cifar-gvbsm") | others),
        evaluations=epochs // 10,
    )


_CIFAR = dict.fromkeys(("cifar10", "cifar100"), "cifar")
_SUBSETS = ("imagenet-10", "imagenet-100", "imagenet-nette", "imagenet-woof")
_IMAGENET = dict.fromkeys(("imagenet-1k", *_SUBSETS), "imagenet")

_RDED_RATES = {
    "vgg11": 5e-4,
    "efficientnet_b0": 2e-3,
    "mobilenet_v2": 2.5e-3,
    "alexnet": 1e-4,
    "vit_b_16": 1e-4,
    "swin_v2_t": 1e-4,
}

# Epochs, batch size and weight of the cross-entropy.
_GVBSM = {
    "imagenet": (300, 1024, 0.1),
    "tinyimagenet": (100, 100, 0.1),
    "cifar100": (1000, 64, 0.15),
    "cifar10": (1000, 100, 0.15),
}


def _rded_batch_size(case: Case) -> int:
    if case.dataset == "tinyimagenet":
        return 100
    size = 10 if case.ipc <= 1 else 50 if case.ipc <= 10 else 100
    return 2 * size if case.num_classes in (100, 1000) else size
