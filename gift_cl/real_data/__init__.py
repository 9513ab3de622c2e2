"""Real data sets: what teachers learn from, students are measured on, and distilled exemplars compete with.

They are read from a folder of the user's, and nothing is downloaded. Every image is decoded once; what comes
back is a `DistilledDataset` of raw pixels whose images stay in a file until they are used.
"""

from gift_cl.real_data.controls import real_exemplars as real_exemplars
from gift_cl.real_data.decoding import resize_then_crop as resize_then_crop
from gift_cl.real_data.loading import data_root as data_root
from gift_cl.real_data.loading import load_real_data as load_real_data
from gift_cl.real_data.loading import load_split as load_split
from gift_cl.real_data.published import PUBLISHED as PUBLISHED
from gift_cl.real_data.published import PublishedData as PublishedData
from gift_cl.real_data.real_data import HOLD_OUT_SEED as HOLD_OUT_SEED
from gift_cl.real_data.real_data import RealData as RealData
from gift_cl.real_data.real_data import hold_out as hold_out
from gift_cl.real_data.subset import subset as subset
