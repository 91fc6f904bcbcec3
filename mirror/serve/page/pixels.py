"""One frame of a DICOM file as a PNG, in a process of its own: whatever a hostile file does, it does it there.

Hides decoders, windowing and the PNG format. Run as a script, which the package around it would make
slower to start: `pixels.py FILE FRAME [CENTER WIDTH]`.
"""

from __future__ import annotations

import asyncio
import math
import resource
import struct
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pydicom
from msgspec import Struct
from pydicom.multival import MultiValue

#: Bytes of memory and seconds that the rendering of a frame may take.
_MEMORY, _SECONDS = 2 * 1024**3, 20
#: Values longer than this many bytes are not read before they are asked for.
_DEFERRED = 64 * 1024
#: Longer sides are thinned out to fit: a preview is no reading station.
_LONGEST = 1024
_RUNNING = 2
_MOST_WINDOWS = 20


class Window(Struct, frozen=True):
    """A window (DICOM PS3.3, C.11.2.1.2): its centre and width, in units of the modality; and what it is called."""

    center: float
    width: float
    name: str = ""


class Picture(Struct, frozen=True):
    """A frame as a PNG, how many frames its file has, the windows that the file names, and the one that it is seen by.

    The last is None for colours, and where the file has a table in its place.
    """

    png: bytes
    frames: int
    windows: tuple[Window, ...] = ()
    window: Window | None = None


class NoPreview(ValueError):
    """There is no picture of this; the words say why, and are fit to be shown."""


class Renderer:
    """Renders frames, two at a time. Belongs to one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_RUNNING)

    async def render(self, path: Path, frame: int, window: Window | None = None) -> Picture:
        """A frame (from 0), through a window or the file's own first. Raises NoPreview. Safe to repeat."""
        words = [] if window is None else [repr(window.center), repr(window.width)]
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(path), str(frame), *words,
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
        try:
            told = msgspec.msgpack.decode(out, type=Picture | str)
        except msgspec.DecodeError as error:
            # Whatever ended it, it was in the middle: it ran out of memory or time, or a decoder broke.
            raise NoPreview("The decoder gave up on this file.") from error
        if isinstance(told, str):
            raise NoPreview(told)
        return told


def _draw(path: Path, frame: int, window: Window | None) -> Picture:
    """What Renderer.render gives, in this process."""
    dataset = pydicom.dcmread(path, defer_size=_DEFERRED)  # a frame is read alone
    if "PixelData" not in dataset:
        raise NoPreview("This instance has no pixels.")
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    if not 0 <= frame < frames:
        raise NoPreview(f"There is no frame {frame + 1}.")
    try:
        from pydicom.pixels.processing import apply_modality_lut
        from pydicom.pixels.utils import pixel_array

        values: Any = pixel_array(path, index=frame)  # colours come as RGB
    # What pydicom raises where a plug-in is missing, or knows no such transfer syntax.
    except (ImportError, RuntimeError, NotImplementedError, AttributeError) as error:
        syntax = dataset.file_meta.TransferSyntaxUID.name
        raise NoPreview(f"No decoder here for {syntax}; tcia-mirror[page] brings the usual ones.") from error
    step = max(1, -(-max(values.shape[:2]) // _LONGEST))
    values = values[::step, ::step]
    windows: tuple[Window, ...] = ()
    if values.ndim == 2:
        _take_from_groups(dataset, frame)
        windows = _windows(dataset)
        values, window = _by_window(apply_modality_lut(values, dataset), dataset, window, windows)
        if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
            values = 255 - values
    else:
        window = None
        if str(values.dtype) != "uint8":
            values = values.astype("float32") * (255 / (float(values.max()) or 1))
    eight = values.round().clip(0, 255).astype("uint8")
    png = _png(eight.tobytes(), eight.shape[1], eight.shape[0], 3 if eight.ndim == 3 else 1)
    return Picture(png, frames, windows, window)


def _take_from_groups(dataset: pydicom.Dataset, frame: int) -> None:
    """Put what the functional groups of an enhanced object say of a frame's values where a plain one has it."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*(dataset.get("SharedFunctionalGroupsSequence") or []), *frames[frame : frame + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in group.get(name) or []:
                dataset.update(item)


def _windows(dataset: pydicom.Dataset) -> tuple[Window, ...]:
    """The windows that a file names; those that are none are left out."""
    columns: list[list[Any]] = []
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        value = dataset.get(keyword)
        columns.append(list(value) if isinstance(value, MultiValue) else [] if value is None else [value])
    centers, widths, names = columns
    windows = []
    for n, (center, width) in enumerate(zip(centers, widths, strict=False)):
        with suppress(ValueError, TypeError):
            window = Window(float(center), float(width), str(names[n])[:64] if n < len(names) else "")
            if math.isfinite(window.center) and math.isfinite(window.width) and window.width > 0:
                windows.append(window)
    return tuple(windows[:_MOST_WINDOWS])


def _by_window(
    values: Any, dataset: pydicom.Dataset, wanted: Window | None, windows: Sequence[Window]
) -> tuple[Any, Window | None]:
    """Grey values as 0 to 255, and the window that made them (DICOM PS3.3, C.11.2.1).

    One that is wanted goes before the file's table, the table before the file's windows; without any of these, the
    window is from the smallest value to the greatest.
    """
    if "VOILUTSequence" in dataset and wanted is None:
        from pydicom.pixels.processing import apply_voi

        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return apply_voi(values, dataset).astype("float32") * (255 / (2**bits - 1)), None
    values = values.astype("float32")
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    window = wanted or next(iter(windows), None)
    if window is None:
        low, high = float(values.min()), float(values.max())
        window, function = Window((low + high) / 2, (high - low) or 1.0), "LINEAR_EXACT"
    center, width = window.center, window.width
    if function == "SIGMOID":
        return 255 / (1 + math.e ** (-4 * (values - center) / width).clip(-80, 80)), window
    if function == "LINEAR" and width > 1:
        return ((values - (center - 0.5)) / (width - 1) + 0.5) * 255, window
    return ((values - center) / width + 0.5) * 255, window


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
    told: Picture | str
    try:
        path, frame, *window = sys.argv[1:]
        told = _draw(Path(path), int(frame), Window(float(window[0]), float(window[1])) if window else None)
    except NoPreview as error:
        told = str(error)
    except MemoryError:
        told = "This file takes more memory than a preview may."
    except Exception:  # decoders have no one error for what they cannot read
        told = "This file cannot be drawn."
    sys.stdout.buffer.write(msgspec.msgpack.encode(told))


if __name__ == "__main__":
    _main()
