"""Image formats by the first bytes of a file, and file extensions of images. Pure Python."""

from __future__ import annotations

import re

HEAD_BYTES = 1024  # enough to recognise every format
HEIF = "HEIF"  # needs the extra `heif`
READ_FORMATS = frozenset({"JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "AVIF", HEIF, "JPEG 2000", "PNM"})

# Regular expressions of the start of a file; the first one that matches counts. Signatures of two bytes are extended by
# header fields of few possible values, so that a text file which happens to start with them is not an image.
_SIGNATURES: tuple[tuple[str, bytes], ...] = (
    # Formats that are read
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("WebP", rb"RIFF.{4}WEBP"),
    ("AVIF", rb".{4}ftypavi[fs]"),
    ("AVIF", rb".{4}ftyp(?:mif1|mif2|msf1|miaf)(?:.{4})+?avi[fs]"),  # named among the compatible brands only
    (HEIF, rb".{4}ftyp(?:hei[cmsx]|hev[cmsx]|mif1|mif2|msf1|miaf)"),
    ("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("PNM", rb"P[1-6]\s+(?:#[^\n]*\n\s*)*[0-9]+\s"),
    # Camera raw files that are laid out as TIFF would be read as their thumbnails
    ("camera raw", rb"II\*\0.{4}CR\x02|MM\0\*.{4}CR\x02|II(?:RO|RS|U\0)|MMOR|II\x1a\0\0\0HEAPCCDR|.{4}ftypcrx "),
    ("camera raw", rb"FUJIFILMCCD-RAW|FOVb|\0MRM"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    # Formats that are not
    ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    ("JPEG XR", rb"II\xbc\x01"),
    ("PSD", rb"8BPS\0[\1\2]"),
    ("SVG", rb"(?:\xef\xbb\xbf)?\s*<(?:svg|(?:\?xml|!--|!DOCTYPE svg).*?<svg)[\s>]"),
    ("EPS", rb"%!PS-Adobe-[0-9.]+ EPSF|\xc5\xd0\xd3\xc6"),
    ("OpenEXR", rb"v/1\x01"),
    ("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)\n"),
    ("PFM", rb"P[Ff]\s+[0-9]+\s+[0-9]+\s"),
    ("PAM", rb"P7\n"),
    ("ICO", rb"\0\0[\1\2]\0[^\0]\0.{3}\0"),
    ("ICNS", rb"icns\0"),
    ("DICOM", rb".{128}DICM"),
    ("FITS", rb"SIMPLE  = {20}T"),
    ("XCF", rb"gimp xcf "),
    ("DDS", rb"DDS \x7c\0\0\0"),
    ("QOI", rb"qoif.{8}[\3\4][\0\1]"),
    ("DjVu", rb"AT&TFORM.{4}DJV"),
    ("MNG", rb"\x8aMNG\r\n\x1a\n|\x8bJNG\r\n\x1a\n"),
    ("BPG", rb"BPG\xfb"),
    ("FLIF", rb"FLIF[1Q]"),
    ("PCX", rb"\x0a[\0\2-\5]\x01[\1\2\4\x08]"),
    ("SGI", rb"\x01\xda[\0\1][\1\2]\0[\1-\3]"),
    ("EMF", rb"\x01\0\0\0.{36} EMF|\xd7\xcd\xc6\x9a\0\0"),
)
_COMPILED = tuple((name, re.compile(signature, re.DOTALL)) for name, signature in _SIGNATURES)

# Usual file extensions by format, of which images without a signature, such as TGA, have nothing else
EXTENSIONS_OF_FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    HEIF: (".heic", ".heics", ".heif", ".heifs", ".hif"),
    "JPEG 2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "camera raw": (
        *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".orf", ".rw2", ".raf", ".pef"),
        *(".srw", ".x3f", ".erf", ".kdc", ".dcr", ".mrw", ".3fr", ".iiq", ".mos", ".rwl", ".raw"),
    ),
    "JPEG XL": (".jxl",),
    "JPEG XR": (".jxr", ".wdp", ".hdp"),
    "PSD": (".psd", ".psb"),
    "SVG": (".svg", ".svgz"),
    "EPS": (".eps",),
    "OpenEXR": (".exr",),
    "Radiance HDR": (".hdr",),
    "PFM": (".pfm",),
    "PAM": (".pam",),
    "ICO": (".ico", ".cur"),
    "ICNS": (".icns",),
    "DICOM": (".dcm", ".dicom"),
    "FITS": (".fits", ".fts"),
    "XCF": (".xcf",),
    "DDS": (".dds",),
    "QOI": (".qoi",),
    "DjVu": (".djvu", ".djv"),
    "MNG": (".mng", ".jng"),
    "BPG": (".bpg",),
    "FLIF": (".flif",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "EMF": (".emf", ".wmf"),
    "TGA": (".tga",),
    "Sun raster": (".ras",),
    "X11 bitmap": (".xbm", ".xpm"),
}
READ_EXTENSIONS = frozenset(
    extension for name, extensions in EXTENSIONS_OF_FORMATS.items() if name in READ_FORMATS for extension in extensions
)
# Of images in formats that are not read: such a file is reported, never dropped in silence
UNREAD_EXTENSIONS = frozenset(sum(EXTENSIONS_OF_FORMATS.values(), ())) - READ_EXTENSIONS


def image_format(head: bytes) -> str | None:
    r"""Name the image format of a file by its content.

    Args:
        head: First `HEAD_BYTES` bytes of the file, or all of a shorter file.

    Returns:
        A name such as `"JPEG"`, `"WebP"` or `"JPEG 2000"`; `None` if the bytes are not the start of an image. Formats
        outside `READ_FORMATS`, such as `"PSD"`, cannot be decoded.

    Example:
        >>> image_format(b"\x89PNG\r\n\x1a\n")
        'PNG'
    """
    head = head[:HEAD_BYTES]
    return next((name for name, signature in _COMPILED if signature.match(head)), None)
