"""Text where a checkpoint should be: what Git, web servers and buckets hand out instead, manifests, configurations."""

from __future__ import annotations

import re

from openckpt.errors import size_text
from openckpt.formats.detect import Detected, pickle_of
from openckpt.storage.reading import ByteSource

_LFS_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})\r?$", re.MULTILINE)
_LFS_SIZE = re.compile(rb"^size (\d{1,19})\r?$", re.MULTILINE)
_MANIFEST = re.compile(
    rb"(?:\s|#[^\n]*\n)*(?:all_)?model_checkpoint_(?:path|paths|timestamps)\s*[:\[]"
    rb"|(?:\s|#[^\n]*\n)*last_preserved_timestamp\s*:"
)
_HTML = re.compile(rb"(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
_XML_CODE = re.compile(rb"<Code>([^<]{1,100})</Code>")
_XML_MESSAGE = re.compile(rb"<Message>([^<]{1,200})</Message>")
_OLD_PICKLE = re.compile(rb"(?:[(\]}]?(?:dp|lp|i)\d*\n|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n)")  # protocols 0 and 1
_CONTROL = bytes(set(range(32)) - {7, 8, 9, 10, 12, 13, 27}) + b"\x7f"


def detect_text(source: ByteSource, head: bytes) -> Detected | None:
    """Return what kind of text a file is, or None for a binary file."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head[2:].decode("utf-16-be" if head[0] == 0xFE else "utf-16-le", "replace")
        return _plain(source, text) if text[:80].isprintable() else None
    if head.translate(None, _CONTROL) != head:
        return None
    # The head may end inside a character.
    for cut in range(4 if len(head) < source.size else 1):
        try:
            text = head[: len(head) - cut].decode("utf-8-sig")
            break
        except UnicodeDecodeError:
            continue
    else:
        return _latin(head)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return _web(start) or _known(start) or _plain(source, text)


def _latin(head: bytes) -> Detected | None:
    """Text in an old encoding, only where it says what it is: any byte string reads as Latin-1."""
    start = head.lstrip()
    return _web(start) or (_known(start) if _MANIFEST.match(start) else None)


def _web(start: bytes) -> Detected | None:
    if (start.startswith(b"version ") and b"git-lfs" in start[:64]) or b"\noid sha256:" in start[:200]:
        return _lfs_pointer(start)
    if _HTML.match(start):
        title = _TITLE.search(start)
        words = f" titled {_words(title[1])!r}" if title else ""
        return Detected("html", f"a web page{words} instead of the file that was asked for", "detect.html-page")
    if start.startswith((b"<?xml", b"<Error>")):
        code, message = _XML_CODE.search(start), _XML_MESSAGE.search(start)
        if b"<Error>" in start and code:
            said = f" ({_words(message[1])})" if message else ""
            return Detected(
                "xml", f"the error page of a storage bucket: {_words(code[1])}{said}", "detect.xml-error-page"
            )
        if b"<html" in start.lower():
            return Detected("html", "a web page instead of the file that was asked for", "detect.html-page")
        return Detected("xml", "an XML document", "detect.text")
    return None


def _lfs_pointer(start: bytes) -> Detected:
    oid, size = _LFS_OID.search(start), _LFS_SIZE.search(start)
    real = f"the real file ({size_text(int(size[1]))})" if size else "the real file"
    name = f", oid {oid[1][:12].decode()}" if oid else ""
    return Detected("lfs-pointer", f"a Git LFS pointer{name}: {real} was never downloaded", "detect.lfs-pointer")


def _known(start: bytes) -> Detected | None:
    if _MANIFEST.match(start):
        return Detected("manifest", "a checkpoint manifest (the text file that names the newest checkpoint)")
    if re.match(rb'\{\s*["}]|\[\s*[\[{"\d\]-]', start):
        return Detected("json", _json_words(start), "detect.json")
    if _OLD_PICKLE.match(start):
        return pickle_of(start)
    if re.match(rb"(?:node|meta_info_def|graph_def)\s*\{", start):
        return Detected("graph", "a TensorFlow graph in text form, without weights", "detect.graph")
    return None


def _json_words(start: bytes) -> str:
    if b'"weight_map"' in start:
        return "the JSON index of weights that are split over several files"
    if b'"class_name"' in start and (b'"keras_version"' in start or b'"config"' in start):
        return "the JSON configuration of a Keras model, without its weights"
    if b'"weightsManifest"' in start or b'"modelTopology"' in start:
        return "a TensorFlow.js model description; its weights lie in .bin files beside it"
    error = re.search(rb'"(?:error|message|detail)"\s*:\s*"([^"]{1,120})"', start[:500])
    return f"a JSON document that says {_words(error[1])!r}" if error else "a JSON document"


def _plain(source: ByteSource, text: str) -> Detected:
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    shown = first if len(first) <= 60 else first[:57] + "..."
    return Detected("text", f"plain text of {size_text(source.size)} that begins {shown!r}", "detect.text")


def _words(raw: bytes) -> str:
    import html

    return " ".join(html.unescape(raw.decode("utf-8", "replace")).split())
