"""Streams of soft labels: what a teacher said of every view of every epoch, replayed as published."""

from gift_cl.label_streams.batch import Cutmix as Cutmix
from gift_cl.label_streams.batch import Mixup as Mixup
from gift_cl.label_streams.batch import StreamBatch as StreamBatch
from gift_cl.label_streams.fkd import FKDStream as FKDStream
from gift_cl.label_streams.packed import PackedStream as PackedStream
from gift_cl.label_streams.packed import open_stream as open_stream
from gift_cl.label_streams.packed import verify_stream as verify_stream
from gift_cl.label_streams.packing import pack_stream as pack_stream
from gift_cl.label_streams.replay import ReplayedBatch as ReplayedBatch
from gift_cl.label_streams.replay import StreamedBatches as StreamedBatches
from gift_cl.label_streams.stream import LabelStream as LabelStream
from gift_cl.label_streams.stream import StreamFacts as StreamFacts
from gift_cl.label_streams.stream import StreamShape as StreamShape
