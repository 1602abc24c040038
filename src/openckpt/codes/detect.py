"""Codes of the area `detect`: what lies where a checkpoint should be."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "detect.empty": Code(
        "error",
        "The file has no bytes: the program that wrote it was stopped, the disk was full, or a placeholder was copied.",
        "copy or download the file again",
    ),
    "detect.foreign": Code(
        "error",
        "The file is of another kind and holds no checkpoint.",
        "openckpt find {dir}",
    ),
    "detect.graph": Code(
        "error",
        "The file describes a graph, not the values of its variables; those lie in the checkpoint that was saved with it.",
        "openckpt find {dir}",
    ),
    "detect.html-page": Code(
        "error",
        "A web server answered with a page (a login, a warning, a viewer) and the download tool saved that page.",
        "download the file itself (curl -fL URL): on GitHub from the raw link, on Google Drive past its warning page",
    ),
    "detect.json": Code(
        "error",
        "The file is a JSON document; the weights lie in other files.",
        "openckpt find {dir}",
    ),
    "detect.lfs-pointer": Code(
        "error",
        "The repository keeps this file in Git LFS and it was cloned without LFS, so only the pointer to it is here.",
        "git lfs install && git lfs pull",
    ),
    "detect.msgpack": Code(
        "error",
        "The file is in the msgpack format of Flax, which openckpt does not read.",
        "load it with flax.serialization.msgpack_restore and save it as safetensors",
    ),
    "detect.pickle": Code(
        "error",
        "The file is a pickle. Opening one runs whatever program its author put in, so openckpt never does.",
        "ask its author for safetensors or npz, or load it where you would run its author's programs",
    ),
    "detect.table-cut": Code(
        "error",
        "The file begins like a checkpoint index but its end is missing: a copy or download broke off, or a save was killed.",
        "copy or download the file again",
    ),
    "detect.text": Code(
        "error",
        "The file is text, perhaps the error message of a server that was saved under the name of the file.",
        "read it, then copy or download the file again (curl -fL URL fails instead of saving an error)",
    ),
    "detect.text-damaged": Code(
        "error",
        "A binary file went through a transfer or program that treats files as text (FTP in ASCII mode, Git with autocrlf, an editor).",
        "transfer the original again in binary mode; in Git, mark it as binary in .gitattributes",
    ),
    "detect.torch": Code(
        "error",
        "The file is a PyTorch checkpoint; its tensors are described by a pickle, which openckpt never executes.",
        "in PyTorch: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')",
    ),
    "detect.trailing-junk": Code(
        "error",
        "Something was appended to the file after it was written: two downloads in one, a proxy's text, a padded disk image.",
        "copy or download the file again",
    ),
    "detect.unknown": Code(
        "error",
        "Nothing in the file tells what it is. The data shards of a checkpoint have no signature; pass their .index instead.",
        "openckpt find {dir}",
    ),
    "detect.xml-error-page": Code(
        "error",
        "A storage bucket answered with an error (no such file, access denied) and the download tool saved the answer.",
        "find the file's present address and download it with curl -fL URL, which fails instead of saving an error",
    ),
    "detect.zeros": Code(
        "error",
        "The file has its length but no content: a crash after space was reserved, or a sparse copy of a missing file.",
        "copy or download the file again",
    ),
}
