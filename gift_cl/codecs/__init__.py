"""Codecs: how the images of a memory are stored, and what they cost."""

from gift_cl.codecs.codec import Codec as Codec
from gift_cl.codecs.encoded import EncodedImages as EncodedImages
from gift_cl.codecs.encoded import concat as concat
from gift_cl.codecs.file_codecs import Jpeg as Jpeg
from gift_cl.codecs.file_codecs import Png as Png
from gift_cl.codecs.file_codecs import Webp as Webp
from gift_cl.codecs.recode import recode as recode
from gift_cl.codecs.tensor_codecs import Downscale as Downscale
from gift_cl.codecs.tensor_codecs import Float32 as Float32
from gift_cl.codecs.tensor_codecs import Quantize as Quantize
from gift_cl.codecs.tensor_codecs import Raw as Raw
from gift_cl.codecs.whole_files import WholeFiles as WholeFiles
from gift_cl.registry import Registry

CODECS: Registry[Codec] = Registry("codec")
CODECS.add("raw", Raw, reference="uint8 pixels as they are")
CODECS.add("png", Png, reference="ISO/IEC 15948, written by pillow")
CODECS.add("jpeg", Jpeg, reference="ITU-T T.81, written by pillow")
CODECS.add("webp", Webp, reference="RFC 9649 and RFC 6386, written by pillow")
CODECS.add("quantize", Quantize, reference="uniform levels over [0, 255], packed")
CODECS.add("downscale", Downscale, reference="area average, bilinear interpolation back")
CODECS.add("float32", Float32, reference="IEEE 754 binary32 values as they are")
CODECS.add("files", WholeFiles, reference="JPEG, PNG and WebP files as they are")


def build_codec(spec: str) -> Codec:
    """The codec that a spec describes.

    Args:
        spec: ``raw``, ``float32``, ``png``, ``jpeg:75``, ``webp:75``, ``webp:lossless``, ``quantize:4``,
            ``downscale:2``, or ``downscale:2,bits=4``, with other numbers as needed; ``files`` for images
            that are kept as published.

    Raises:
        ValueError: If the name or an option is unknown, or an option is missing or out of range.

    Example:
        >>> build_codec("downscale:2,bits=8").spec
        'downscale:2'
    """
    return CODECS.create(spec)
