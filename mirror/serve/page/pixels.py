"""One frame of a DICOM file as a PNG, in a process of its own: whatever a hostile file does, it does it there.

Hides decoders, windowing and the PNG format. Run as `python -m mirror.serve.page.pixels FILE FRAME`.
"""

from __future__ import annotations

import asyncio
import resource
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pydicom

#: Bytes of memory and seconds that the rendering of a frame may take.
_MEMORY, _SECONDS = 2 * 1024**3, 20
#: Longer sides are thinned out to fit: a preview is no reading station.
_LONGEST = 1024
_RUNNING = 2


class NoPreview(ValueError):
    """There is no picture of this; the words say why, and are fit to be shown."""


class Renderer:
    """Renders frames, two at a time. Belongs to one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_RUNNING)

    async def render(self, path: Path, frame: int) -> tuple[bytes, int]:
        """The PNG of a frame (from 0), and how many frames there are. Raises NoPreview. Safe to repeat."""
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", __name__, str(path), str(frame),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                async with asyncio.timeout(_SECONDS):
                    out, _ = await process.communicate()
            except TimeoutError as error:
                raise NoPreview("Rendering took too long.") from error
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        kind, frames, body = out[:1], out[1:5], out[5:]
        if kind == b"P":
            return body, int.from_bytes(frames, "big")
        raise NoPreview(body.decode("utf-8", "replace") if kind == b"N" else "The decoder gave up on this file.")


def _draw(path: Path, frame: int) -> tuple[bytes, int]:
    """What Renderer.render gives, in this process."""
    dataset = pydicom.dcmread(path)
    if "PixelData" not in dataset:
        raise NoPreview("This instance has no pixels.")
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    if not 0 <= frame < frames:
        raise NoPreview(f"There is no frame {frame + 1}.")
    try:
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
        from pydicom.pixels.utils import pixel_array

        values: Any = pixel_array(path, index=frame)  # colours come as RGB
    # What pydicom raises where a plug-in is missing, or knows no such transfer syntax.
    except (ImportError, RuntimeError, NotImplementedError, AttributeError) as error:
        syntax = dataset.file_meta.TransferSyntaxUID.name
        raise NoPreview(f"No decoder here for {syntax}; tcia-mirror[page] brings the usual ones.") from error
    step = max(1, -(-max(values.shape[:2]) // _LONGEST))
    values = values[::step, ::step]
    if values.ndim == 2:
        values = apply_voi_lut(apply_modality_lut(values, dataset), dataset).astype("float32")
        low, high = float(values.min()), float(values.max())
        values = (values - low) * (255 / ((high - low) or 1))
        if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
            values = 255 - values
    elif str(values.dtype) != "uint8":
        values = values.astype("float32") * (255 / (float(values.max()) or 1))
    eight = values.clip(0, 255).astype("uint8")
    return _png(eight.tobytes(), eight.shape[1], eight.shape[0], 3 if eight.ndim == 3 else 1), frames


def _png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """Rows of 8-bit grey (1 channel) or RGB (3) as a PNG."""
    stride = width * channels
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        picture, frames = _draw(Path(sys.argv[1]), int(sys.argv[2]))
        answer = b"P" + frames.to_bytes(4, "big") + picture
    except NoPreview as error:
        answer = b"N\0\0\0\0" + str(error).encode()
    except Exception:  # decoders have no one error for what they cannot read
        answer = b"N\0\0\0\0This file cannot be drawn."
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    _main()
