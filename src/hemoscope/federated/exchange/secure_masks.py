"""Masks that are as hard to guess as their keys.

Flower 1.41 expands each mask from its 256-bit key by NumPy's Mersenne Twister, seeded with the exclusive or of the
key's 32-bit words (``flwr.common.secure_aggregation.secaggplus_utils.pseudo_rand_gen``): at most 2**32 masks, and of
the base64 keys that two sites share at most 2**28, which a curious server can try out. SecAgg+ asks for a
pseudorandom generator with the whole key (Bell et al., CCS 2020, section 3). So both ends of Flower's protocol get one:
ChaCha20 (RFC 8439) under the SHA-256 of the key, which is used for one mask only.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.federated.flower_internals import replace_mask_generator

_PURPOSE = b"hemoscope secure aggregation mask 1\0"


def mask_values(key: bytes, modulus: int, shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.int64]]:
    """Masks of the given shapes, uniform from 0 to below the modulus.

    Args:
        key: of any length; one key makes one set of masks.
        modulus: a power of two, at most 2**62.
        shapes: of the masks, one after the other in one stream.

    Raises:
        FederationError: the modulus is not such a power.
    """
    if modulus < 2 or modulus > 1 << 62 or modulus & (modulus - 1):
        msg = f"masks are drawn below a power of two up to 2**62, got {modulus}. Do server and sites run one version?"
        raise FederationError(msg)
    sizes = [math.prod(shape) for shape in shapes]
    stream = Cipher(ChaCha20(hashlib.sha256(_PURPOSE + key).digest(), bytes(16)), mode=None).encryptor()
    words = np.frombuffer(stream.update(bytes(8 * sum(sizes))), dtype="<u8") & np.uint64(modulus - 1)
    values = np.split(words.astype(np.int64), np.cumsum(sizes)[:-1])
    return [value.reshape(shape) for value, shape in zip(values, shapes, strict=True)]


def strengthen_masks() -> None:
    """Have Flower's protocol draw its masks by ``mask_values``, at both ends, in this process.

    Raises:
        FederationError: this Flower draws them otherwise; then nothing is masked at all.
    """
    replace_mask_generator(mask_values)
