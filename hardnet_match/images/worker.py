"""The process that decodes: answers requests on its standard input until that ends. Started by `workers`.

A request is a line of JSON. The answer begins with a line that tells the pixels the header promises; after a line of
consent comes a line of JSON, and behind it the bytes of the arrays that it describes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO

from ..errors import ImageError
from .loading import Loaded, load

READY = b"ready\n"
GO = b"go\n"


def main() -> None:
    """Serve whoever holds the other ends of standard input and output."""
    # What a library prints goes to standard error, not between the answers.
    answers: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the decoder has a limit of its own, and says so in its own words
    answers.write(READY)
    answers.flush()
    while line := requests.readline():

        def ask(pixels: int) -> None:
            answers.write(b'{"pixels": %d}\n' % pixels)
            answers.flush()
            if requests.readline() != GO:
                raise SystemExit(0)

        try:
            write_answer(answers, load(**json.loads(line), ask=ask))
        except (ImageError, OSError) as error:
            _say(answers, {"error": str(error)})
        except MemoryError:
            _say(answers, {"error": "too large for the memory"})
        answers.flush()


def write_answer(answers: BinaryIO, loaded: Loaded) -> None:
    """A loaded photo as one line of JSON and the arrays' bytes."""
    picture, mask = loaded.picture, loaded.mask
    _say(
        answers,
        {
            "shape": picture.pixels.shape,
            "size": picture.size,
            "to_file": picture.to_file.tolist(),
            "mask": mask is not None,
            "stamp": loaded.stamp,
        },
    )
    answers.write(picture.pixels.tobytes())
    if mask is not None:
        answers.write(mask.tobytes())


def _say(answers: BinaryIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
