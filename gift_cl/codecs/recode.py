"""From one codec to another, a few images at a time."""

from __future__ import annotations

import torch

from gift_cl.codecs.codec import Codec
from gift_cl.codecs.encoded import EncodedImages, concat
from gift_cl.progress import Progress, silent

_CHUNK = 256


def recode(encoded: EncodedImages, codec: Codec, *, progress: Progress = silent) -> EncodedImages:
    """The same images as another codec stores them; decoded pixels of 256 of them are held at a time.

    Args:
        encoded: Images of any codec.
        codec: The codec wanted. Images that it wrote itself are returned as they are.
        progress: Told of the images that are done.

    Raises:
        TypeError: If the codec does not take images of this type, as only ``float32`` takes floats.
        ValueError: If stored bytes are damaged, or the images do not suit the codec.
    """
    if encoded.codec == codec.spec:
        return encoded
    parts = [codec.encode(encoded.select([]).decode())]
    done = 0
    for chunk in torch.arange(len(encoded)).split(_CHUNK):
        parts.append(codec.encode(encoded.select(chunk).decode()))
        progress(done := done + len(chunk), len(encoded))
    return concat(parts)
