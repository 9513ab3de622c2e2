"""Distillers by name: each makes few exemplars of many images."""

from gift_cl.distillers.cda import CDA as CDA
from gift_cl.distillers.coverage import Coverage as Coverage
from gift_cl.distillers.datm import DATM as DATM
from gift_cl.distillers.dm import DM as DM
from gift_cl.distillers.gvbsm import GVBSM as GVBSM
from gift_cl.distillers.herding import Herding as Herding
from gift_cl.distillers.hybrid import Hybrid as Hybrid
from gift_cl.distillers.hybrid import hybrid_of
from gift_cl.distillers.idc import IDC as IDC
from gift_cl.distillers.protocol import REAL_IMAGES as REAL_IMAGES
from gift_cl.distillers.protocol import Distiller as Distiller
from gift_cl.distillers.random_images import RandomImages as RandomImages
from gift_cl.distillers.rded import RDED as RDED
from gift_cl.distillers.sre2l import SRe2L as SRe2L
from gift_cl.registry import Registry

DISTILLERS: Registry[Distiller] = Registry("distiller")
DISTILLERS.add("random", RandomImages, reference="uniform draw of real images")
DISTILLERS.add("herding", Herding, reference="iCaRL, CVPR 2017; real images")
DISTILLERS.add("coverage", Coverage, reference="greedy facility location, Wei et al., ICML 2015; real images")
DISTILLERS.add("rded", RDED, reference="RDED, CVPR 2024; LINs-lab/RDED@3f6453d")
DISTILLERS.add("sre2l", SRe2L, reference="SRe2L, NeurIPS 2023; VILA-Lab/SRe2L@8d00cba")
DISTILLERS.add("cda", CDA, reference="CDA, TMLR 2024; VILA-Lab/SRe2L@8d00cba, CDA")
DISTILLERS.add("gvbsm", GVBSM, reference="G-VBSM, CVPR 2024; shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0")
DISTILLERS.add("dm", DM, reference="Distribution Matching, WACV 2023")
DISTILLERS.add("idc", IDC, reference="IDC, ICML 2022; snu-mllab/Efficient-Dataset-Condensation@086273c")
DISTILLERS.add("datm", DATM, reference="DATM, ICLR 2024; NUS-HPC-AI-Lab/DATM@97ae510")
DISTILLERS.add(
    "hybrid", hybrid_of(DISTILLERS.create), reference="distilled and real; Kong et al., arXiv 2410.15372"
)
