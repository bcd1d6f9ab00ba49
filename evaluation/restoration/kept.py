"""Whether the images of a record are still what was written: the ground truth and the restoration, which results are computed from."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from PIL import Image

from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.images.io import to_image
from diffusion_priors.runs.layout import TRUTH, RunLayout, restoration
from diffusion_priors.runs.reading.png import read_png


def hashes(done: Restored, b: int) -> dict[str, str]:
    """What item b's images hold, for its record: {"truth": "1f…", "restoration": "9c…"}, without those that are not written."""
    made = done.x0 if done.records[b]["error"] is None else None
    images = {"truth": done.truth, "restoration": made}
    return {name: image_hash(to_image(image[b])) for name, image in images.items() if image is not None}


def image_hash(image: Image.Image) -> str:
    """A hash of the size and the pixels, not of the file, whose bytes depend on the library that wrote it."""
    pixels = np.asarray(image)
    return blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=8).hexdigest()


def fault(layout: RunLayout, record: dict) -> str | None:
    """What is wrong with the images of a record: "restoration-0.png of face-1 is missing". None where nothing is.

    Of records without hashes, which earlier versions wrote, the restoration must be there and whole.
    """
    expected = record.get("hashes") or ({} if record["error"] is not None else {"restoration": None})
    for name, kept in expected.items():
        kind = restoration(record["sample"]) if name == "restoration" else TRUTH
        path = layout.image(record["id"], kind)
        what = f"{path.name} of {record['id']}"
        try:
            found = image_hash(read_png(path))
        except FileNotFoundError:
            return f"{what} is missing"
        except (OSError, ValueError) as error:
            return f"{what} is damaged ({error})"
        if kept is not None and found != kept:
            return f"{what} is not the image that was written"
    return None
