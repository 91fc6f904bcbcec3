"""What DICOM says of VRs, tags, transfer syntaxes, character sets and sequences, as far as headers are read here."""

from __future__ import annotations

from collections.abc import Iterable


def tag(group: int, element: int) -> int:
    """A tag as the one number that its four bytes are, little endian."""
    return element << 16 | group


def vrs(text: str) -> Iterable[int]:
    """VRs, each as the number that its two bytes are."""
    return (int.from_bytes(vr.encode(), "little") for vr in text.split())


SHORT = frozenset(vrs("AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"))
LONG = frozenset(vrs("OB OD OF OL OV OW SQ SV UC UN UR UT UV"))
CS, IS, LO, SQ, UI, UL = vrs("CS IS LO SQ UI UL")

GROUP_LENGTH, TRANSFER_SYNTAX = tag(0x0002, 0x0000), tag(0x0002, 0x0010)
SOP_CLASS, SOP_INSTANCE = tag(0x0008, 0x0016), tag(0x0008, 0x0018)
STUDY, SERIES = tag(0x0020, 0x000D), tag(0x0020, 0x000E)
PATIENT, ACQUISITION, INSTANCE = tag(0x0010, 0x0020), tag(0x0020, 0x0012), tag(0x0020, 0x0013)
CHARACTER_SET = tag(0x0008, 0x0005)
PIXEL_DATA = tag(0x7FE0, 0x0010)
ITEM, ITEM_END, SEQUENCE_END = tag(0xFFFE, 0xE000), tag(0xFFFE, 0xE00D), tag(0xFFFE, 0xE0DD)
ITEM_BYTES = b"\xfe\xff\x00\xe0"

#: What is not only stepped over: text with its VR, pixel data (0), and what has no business in a data set (-1).
SPECIAL = {
    CHARACTER_SET: CS, SOP_CLASS: UI, SOP_INSTANCE: UI, STUDY: UI, SERIES: UI, PATIENT: LO,
    ACQUISITION: IS, INSTANCE: IS,
    # pydicom reads to the first of these: integer, float or double float pixels.
    PIXEL_DATA: 0, tag(0x7FE0, 0x0008): 0, tag(0x7FE0, 0x0009): 0,
    ITEM_END: -1,
}  # fmt: skip

# What follows of syntaxes, character sets and sequences pydicom knows as well; but to import it takes a good part of a
# run's start, and most runs can do without. The tests hold these tables against pydicom's.

#: Transfer syntaxes (PS3.6, A), and whether VRs are implicit in them. One that is not here may be anything: deflated,
#: big endian, private.
SYNTAXES = {
    f"1.2.840.10008.1.2{end}".encode(): not end
    for end in (
        "", ".1", ".5", ".7.1", ".7.2", ".7.3",
        ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".4.92", ".4.93",
        ".4.100", ".4.100.1", ".4.101", ".4.101.1", ".4.102", ".4.102.1", ".4.103", ".4.103.1", ".4.104", ".4.104.1",
        ".4.105", ".4.105.1", ".4.106", ".4.106.1", ".4.107", ".4.108",
        ".4.201", ".4.202", ".4.203", ".4.204", ".4.205",
    )
}  # fmt: skip

#: Character sets (PS3.3, C.12.1.1.2) in the spellings that pydicom knows; none at all is the default one.
CHARACTER_SETS = frozenset({
    "", "ISO_IR 6", "ISO_IR 13", "ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 126", "ISO_IR 127",
    "ISO_IR 138", "ISO_IR 144", "ISO_IR 148", "ISO_IR 166", "ISO_IR 192", "GB18030", "GBK",
    "ISO 2022 IR 6", "ISO 2022 IR 13", "ISO 2022 IR 58", "ISO 2022 IR 87", "ISO 2022 IR 100", "ISO 2022 IR 101",
    "ISO 2022 IR 109", "ISO 2022 IR 110", "ISO 2022 IR 126", "ISO 2022 IR 127", "ISO 2022 IR 138", "ISO 2022 IR 144",
    "ISO 2022 IR 148", "ISO 2022 IR 149", "ISO 2022 IR 159", "ISO 2022 IR 166", "ISO 2022 58", "ISO 2022 GBK",
})  # fmt: skip

#: Sequences that images, plans and structure sets are full of (PS3.6, 6), group and element. There are 1,300 more.
SEQUENCES = frozenset(
    tag(group, element)
    for group, elements in {
        0x0008: (
            0x0096, 0x1032, 0x1049, 0x1062, 0x1084, 0x1110, 0x1111, 0x1115, 0x1120, 0x1140, 0x1199,
            0x1200, 0x1250, 0x2112, 0x2218, 0x2220, 0x2228, 0x2229, 0x9092, 0x9121, 0x9124, 0x9154, 0x9215,
        ),
        0x0010: (0x0050, 0x1002),
        0x0012: (0x0064,),
        0x0018: (0x0012, 0x0014, 0x0026, 0x0029, 0x002A, 0x9346),
        0x0020: (0x9071, 0x9111, 0x9113, 0x9116, 0x9221, 0x9222),
        0x0028: (0x3000, 0x3010, 0x3110, 0x9110, 0x9132, 0x9145),
        0x0032: (0x1064,),
        0x0040: (
            0x0008, 0x0100, 0x0260, 0x0275, 0x0321, 0x0340, 0x0440, 0x0555, 0x9096, 0xA043, 0xA073, 0xA168, 0xA170,
            0xA300, 0xA370, 0xA372, 0xA375, 0xA385, 0xA504, 0xA525, 0xA730, 0xE022,
        ),
        0x0054: (0x0012, 0x0013, 0x0016, 0x0022, 0x0032, 0x0052, 0x0062, 0x0072, 0x0220, 0x0222, 0x0300, 0x0302,
                 0x0304, 0x0306, 0x0410, 0x0412, 0x0414),
        0x0062: (0x0002, 0x0003, 0x000A, 0x000F),
        0x0070: (0x0001, 0x0008, 0x0009, 0x005A, 0x0060),
        0x0088: (0x0200,),
        0x3002: (0x0030,),
        0x3004: (0x0010, 0x0050, 0x0060),
        0x3006: (0x0010, 0x0012, 0x0014, 0x0016, 0x0020, 0x0030, 0x0039, 0x0040, 0x0080, 0x0086, 0x00B0),
        0x300A: (0x0010, 0x0040, 0x0048, 0x0070, 0x00B0, 0x00B6, 0x00D1, 0x00E3, 0x00F4, 0x0107, 0x0111,
                 0x011A, 0x0180, 0x0190),
        0x300C: (0x0002, 0x0004, 0x0020, 0x0040, 0x0042, 0x0050, 0x0060, 0x0080),
        0x5200: (0x9229, 0x9230),
    }.items()
    for element in elements
)  # fmt: skip
