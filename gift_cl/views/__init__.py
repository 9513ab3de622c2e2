"""Batched, seeded augmentations by name: one draw gives teacher and student the same view."""

from gift_cl.registry import Registry
from gift_cl.views.crops import CropFlip as CropFlip
from gift_cl.views.crops import FactorCrop as FactorCrop
from gift_cl.views.crops import Flip as Flip
from gift_cl.views.crops import RandomResizedCrop as RandomResizedCrop
from gift_cl.views.crops import ShufflePatches as ShufflePatches
from gift_cl.views.dsa import DSA as DSA
from gift_cl.views.dsa import DSAParameters as DSAParameters
from gift_cl.views.dsa import apply_dsa as apply_dsa
from gift_cl.views.mixing import MIXES as MIXES
from gift_cl.views.mixing import CutMix as CutMix
from gift_cl.views.mixing import Mix as Mix
from gift_cl.views.mixing import Mixed as Mixed
from gift_cl.views.mixing import Mixup as Mixup
from gift_cl.views.mixing import NoMix as NoMix
from gift_cl.views.view import Chain as Chain
from gift_cl.views.view import Unchanged as Unchanged
from gift_cl.views.view import View as View

VIEWS: Registry[View] = Registry("view")
VIEWS.add("none", Unchanged, reference="the inputs as they are")
VIEWS.add("flip", Flip, reference="horizontal flip")
VIEWS.add("crop_flip", CropFlip, reference="He et al., Deep Residual Learning, CVPR 2016, §4.2")
VIEWS.add("rrc", RandomResizedCrop, reference="Szegedy et al., CVPR 2015, §6, as in torchvision")
VIEWS.add("factor_crop", FactorCrop, reference="LINs-lab/GIFT@38db552, for RDED's mosaics")
VIEWS.add("shuffle_patches", ShufflePatches, reference="RDED, CVPR 2024; LINs-lab/RDED@3f6453d")
VIEWS.add("dsa", DSA, reference="Zhao and Bilen, DSA, ICML 2021; LINs-lab/GIFT@38db552")


def build_view(spec: str) -> View:
    """The view that a spec describes; several are joined by ``|``, from left to right.

    Raises:
        ValueError: If a name or an option is unknown, or an option has an unusable value.

    Example:
        >>> build_view("factor_crop:2 | dsa:form=one").spec
        'factor_crop | dsa:form=one'
    """
    views = tuple(VIEWS.create(part.strip()) for part in spec.split("|"))
    return views[0] if len(views) == 1 else Chain(views)
