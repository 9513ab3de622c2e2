"""GIFT and the losses it is compared with: functions of logits, soft labels and hard labels."""

from gift_cl.losses.gift import GIFTLoss as GIFTLoss
from gift_cl.losses.gift import gift_loss as gift_loss
from gift_cl.losses.gift import refine_labels as refine_labels
from gift_cl.losses.gift_ce import gift_ce_loss as gift_ce_loss
from gift_cl.losses.registry import LOSSES as LOSSES
from gift_cl.losses.registry import Loss as Loss
from gift_cl.losses.registry import build_loss as build_loss
from gift_cl.losses.rivals import ce_loss as ce_loss
from gift_cl.losses.rivals import cosine_loss as cosine_loss
from gift_cl.losses.rivals import kl_loss as kl_loss
from gift_cl.losses.rivals import mse_ce_loss as mse_ce_loss
from gift_cl.losses.rivals import mse_loss as mse_loss
from gift_cl.losses.rivals import soft_ce_ce_loss as soft_ce_ce_loss
from gift_cl.losses.rivals import soft_ce_loss as soft_ce_loss
