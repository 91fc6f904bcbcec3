"""Pictures of the page: windows, and what hostile files and missing decoders come to."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fakes.dicom import make_series
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from mirror.serve.page import pixels
from mirror.serve.page.pixels import NoPreview, Renderer, Window


def written(path: Path, **elements: Any) -> Path:
    """A file of 16 x 16 pixels with the values 0 to 255, and these elements."""
    dataset = pydicom.dcmread(io.BytesIO(make_series(instances=1)[0]))
    dataset.PixelData = np.arange(256, dtype="uint16").tobytes()
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, 0
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def greys(png: bytes) -> list[int]:
    """The values of a grey PNG of ours, row by row."""
    width, height = struct.unpack(">II", png[16:24])
    start = png.index(b"IDAT")
    rows = zlib.decompress(png[start + 4 : start + 4 + int.from_bytes(png[start - 4 : start], "big")])
    return [value for y in range(height) for value in rows[y * (width + 1) + 1 : (y + 1) * (width + 1)]]


@pytest.mark.asyncio
async def test_without_a_window_the_whole_range_is_shown(tmp_path: Path) -> None:
    picture = await Renderer().render(written(tmp_path / "x.dcm"), 0)
    assert greys(picture.png) == list(range(256))
    assert (picture.frames, picture.window, picture.windows) == (1, Window(127.5, 255.0), ())


@pytest.mark.asyncio
async def test_the_windows_of_the_file_and_one_that_is_asked_for(tmp_path: Path) -> None:
    file = written(
        tmp_path / "x.dcm",
        WindowCenter=[100, 50, 3],
        WindowWidth=[101, 11, 0],
        WindowCenterWidthExplanation=["SOFT", "BÖNE"],
        RescaleSlope=1,
        RescaleIntercept=-10,
    )
    picture = await Renderer().render(file, 0)
    assert picture.windows == (Window(100, 101, "SOFT"), Window(50, 11, "BÖNE"))
    assert picture.window == picture.windows[0]
    # PS3.3, C.11.2.1.2: black up to c - 0.5 - (w - 1) / 2 = 49.5, white above 149.5; stored values are 10 more.
    shades = greys(picture.png)
    assert (shades[59], shades[160]) == (0, 255)
    assert 0 < shades[62] < shades[100] < shades[157] < 255
    picture = await Renderer().render(file, 0, Window(50.0, 11.0))
    assert picture.window == Window(50, 11)
    shades = greys(picture.png)
    assert (shades[54], shades[65]) == (0, 255)
    assert shades[59] == 115  # ((49 - 49.5) / 10 + 0.5) * 255


@pytest.mark.asyncio
async def test_the_other_functions_of_a_window_and_inverted_greys(tmp_path: Path) -> None:
    exact = {"WindowCenter": 100, "WindowWidth": 100}
    linear = written(tmp_path / "e.dcm", VOILUTFunction="LINEAR_EXACT", **exact)
    shades = greys((await Renderer().render(linear, 0)).png)
    assert (shades[50], shades[100], shades[150]) == (0, 128, 255)
    sigmoid = greys((await Renderer().render(written(tmp_path / "s.dcm", VOILUTFunction="SIGMOID", **exact), 0)).png)
    assert sigmoid[100] == 128
    assert 0 < sigmoid[50] < 40 < 220 < sigmoid[150] < 255
    inverted = written(tmp_path / "i.dcm", PhotometricInterpretation="MONOCHROME1", **exact)
    shades = greys((await Renderer().render(inverted, 0)).png)
    assert (shades[0], shades[255]) == (255, 0)


@pytest.mark.asyncio
async def test_a_table_of_the_file_and_the_windows_of_a_frame(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.add_new("LUTData", "US", list(range(255, -1, -1)))
    file = written(tmp_path / "t.dcm", VOILUTSequence=Sequence([table]), WindowCenter=100, WindowWidth=100)
    picture = await Renderer().render(file, 0)
    assert picture.window is None
    assert greys(picture.png) == list(range(255, -1, -1))
    assert (await Renderer().render(file, 0, Window(100.0, 50.0))).window == Window(100, 50)
    voi, group = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = 20, 10
    group.FrameVOILUTSequence = Sequence([voi])
    enhanced = written(tmp_path / "f.dcm", PerFrameFunctionalGroupsSequence=Sequence([group]))
    assert (await Renderer().render(enhanced, 0)).window == Window(20, 10)


@pytest.mark.parametrize("window", [("abc", "1"), (1, 0), (1, -5), ("1e999", 3)])
@pytest.mark.asyncio
async def test_windows_of_the_file_that_are_none_do_no_harm(tmp_path: Path, window: tuple[Any, Any]) -> None:
    file = written(tmp_path / "x.dcm")
    # Straight into the file: pydicom would not write some of these.
    dataset = pydicom.dcmread(file)
    dataset.add_new("WindowCenter", "LO", str(window[0]))
    dataset.add_new("WindowWidth", "LO", str(window[1]))
    dataset.save_as(file)
    try:
        assert len(greys((await Renderer().render(file, 0)).png)) == 256
    except NoPreview as error:
        assert str(error) == "This file cannot be drawn."  # noqa: PT017 - either is right, and nothing else is


@pytest.mark.asyncio
async def test_frames_of_a_huge_size_are_refused_within_the_limits(tmp_path: Path) -> None:
    huge = {"Rows": 65535, "Columns": 65535}
    claimed = written(tmp_path / "claimed.dcm", NumberOfFrames=1000, **huge)
    # Run-length encoded, so that no length gives the claim away before the memory is asked for.
    dataset = pydicom.dcmread(written(tmp_path / "rle.dcm", **huge))
    dataset.file_meta.TransferSyntaxUID = RLELossless
    segments = struct.pack("<16L", 2, 64, 64 + 2, *[0] * 13) + b"\x81\x00\x81\x00"
    dataset.PixelData = encapsulate([segments])
    dataset.save_as(tmp_path / "rle.dcm")
    for file in (claimed, tmp_path / "rle.dcm"):
        with pytest.raises(NoPreview, match=r"cannot be drawn|No decoder|gave up|more memory"):
            await Renderer().render(file, 0)


@pytest.mark.asyncio
async def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_SECONDS", 0.5)
    os.mkfifo(tmp_path / "slow.dcm")  # nobody writes: to open it never ends
    with pytest.raises(NoPreview, match="took too long"):
        await Renderer().render(tmp_path / "slow.dcm", 0)
