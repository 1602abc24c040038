"""Codes of the area `archive`: what can go wrong between an archive and its members."""

from openckpt.codes.code import Code

_AGAIN = "fetch the archive again and compare its size and checksum with the source"

CODES: dict[str, Code] = {
    "archive.bad-directory": Code(
        "error",
        "The zip file's directory contradicts itself or the file around it: it was damaged, cut, or put together by hand.",
        _AGAIN,
    ),
    "archive.bad-header": Code(
        "error",
        "A header inside the archive is damaged; a tar has no directory, so members behind a broken header are not found.",
        _AGAIN,
    ),
    "archive.compression": Code(
        "error",
        "The member is compressed with a method that openckpt does not read.",
        "pack the files again with plain zip, or without compression",
    ),
    "archive.crc-mismatch": Code(
        "error",
        "The archive's own checksum over the unpacked data does not match: bytes were changed on the way.",
        _AGAIN,
    ),
    "archive.damaged": Code(
        "error",
        "The compressed data is damaged: bytes were changed, or the transfer treated the file as text.",
        _AGAIN,
    ),
    "archive.encrypted": Code(
        "error",
        "The member is protected with a password, and openckpt does not decrypt.",
        "unpack it with its password (unzip asks for it) and open the file itself",
    ),
    "archive.header-mismatch": Code(
        "error",
        "The zip's directory and the header in front of the member tell different things: it was damaged or made to deceive.",
        _AGAIN,
    ),
    "archive.link": Code(
        "error",
        "A link inside an archive could point anywhere; openckpt does not follow it, and promises to open no path that a file names.",
        "name the member that the link points to",
    ),
    "archive.multi-disk": Code(
        "error",
        "The zip file is one of several parts; the others hold the rest.",
        "join the parts first: zip -s 0 {path} --out whole.zip",
    ),
    "archive.no-end": Code(
        "warning",
        "A tar ends with blocks of zeros and this one does not: it may have been cut off exactly between two members.",
        _AGAIN,
    ),
    "archive.no-memory": Code(
        "error",
        "Members of a compressed archive are unpacked to memory, and this machine has too little of it for this one.",
        "unpack the archive to a disk (tar xf, unzip) and open the checkpoint there",
    ),
    "archive.overlap": Code(
        "error",
        "Two members claim the same bytes. No tool packs like that; it is how a small file unpacks to petabytes.",
        "do not unpack this file; get the checkpoint from another source",
    ),
    "archive.repeated-name": Code(
        "note",
        "The archive was appended to: it has several members of one name, and unpacking keeps the last.",
        None,
    ),
    "archive.size-mismatch": Code(
        "error",
        "A member unpacks to another size than the archive states: the archive is damaged or was made to deceive.",
        _AGAIN,
    ),
    "archive.special-file": Code(
        "error",
        "The member is a device, a FIFO or a sparse file; its bytes are not simply there to be read.",
        "unpack the archive with tar and open the file itself",
    ),
    "archive.truncated": Code(
        "error",
        "The archive ends in the middle: a download or copy broke off, or the disk was full when it was made.",
        "fetch the archive again (curl -C - continues a download that broke off)",
    ),
    "archive.unknown": Code(
        "error",
        "The file is no archive that openckpt reads in place: zip, tar, tar.gz, tar.bz2, tar.xz or Magenta's mag.",
        "openckpt doctor {path}",
    ),
    "archive.unsafe-name": Code(
        "warning",
        "Member names that climb out of the folder (../, /absolute, C:) can overwrite files when a careless tool unpacks them.",
        "nothing was written; unpack it only with a tool that strips such names",
    ),
}
