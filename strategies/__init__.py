"""Avalanche strategies and plugins that rehearse from distilled exemplars with the GIFT loss."""

from strategies.criterion import HardLabelCriterion as HardLabelCriterion
from strategies.gift_dumb import GIFTDumb as GIFTDumb
from strategies.gift_replay import GIFTReplay as GIFTReplay
from strategies.growing_head import with_growing_head as with_growing_head
from strategies.memory import DistilledMemory as DistilledMemory
from strategies.plugin import GIFTPlugin as GIFTPlugin
