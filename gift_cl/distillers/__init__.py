"""Distillers by name: each makes few exemplars of many images."""

from gift_cl.distillers.herding import Herding as Herding
from gift_cl.distillers.protocol import Distiller as Distiller
from gift_cl.distillers.random_images import RandomImages as RandomImages
from gift_cl.distillers.rded import RDED as RDED
from gift_cl.registry import Registry

DISTILLERS: Registry[Distiller] = Registry("distiller")
DISTILLERS.add("random", RandomImages, reference="uniform draw of real images")
DISTILLERS.add("herding", Herding, reference="iCaRL, CVPR 2017; real images")
DISTILLERS.add("rded", RDED, reference="RDED, CVPR 2024; LINs-lab/RDED@3f6453d")
