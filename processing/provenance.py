"""Edited and generated pictures say so: what made them, as fields of the IPTC Photo Metadata Standard 2025.1 in an XMP
packet.
"""

import hashlib
import os
import re
from importlib import metadata
from typing import Any
from weakref import WeakKeyDictionary
from xml.sax.saxutils import escape

import torch
from PIL import Image

#: Key of the provenance in `Image.info`; copies, crops and resized pictures of PIL keep it.
INFO_KEY = "gptface"

#: IPTC digital source types: a photo in which a model redrew something, and a picture that a model made.
EDITED = "compositeWithTrainedAlgorithmicMedia"
GENERATED = "trainedAlgorithmicMedia"

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# A JPEG holds 65,502 bytes of XMP; a prompt is a sentence.
_MAX_TEXT = 4000
#: Model → what its weights were when it was hashed, and the hash.
_HASHES: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:gptface="urn:gptface:">
{properties}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def describe(model: Any, prompt: str, source_type: str) -> dict[str, Any]:
    """
    What makes a picture; [`mark`] adds the seed.

    Args:
        model: a GPTFace model. Its Hub name, or the name of its folder (without the path, which is nobody's business),
            and the hash of its weights (as fp16) go into the record.
        source_type: [`EDITED`] or [`GENERATED`].
    """
    name = str(model.name_or_path or "")
    return {
        "software": _software(),
        "model": os.path.basename(os.path.normpath(name)) if os.path.isdir(name) else name,
        "revision": weights_hash(model),
        "prompt": prompt,
        "digital_source_type": source_type,
    }


def mark(image: Image.Image, description: dict[str, Any], seed: int) -> None:
    """Puts the provenance into `image.info`, from where `save_picture` writes it into the file."""
    image.info[INFO_KEY] = {**description, "seed": seed}


def xmp_packet(provenance: dict[str, Any]) -> bytes:
    """The provenance of one picture as an XMP packet, UTF-8."""
    properties = {
        "xmp:CreatorTool": provenance["software"],
        "Iptc4xmpExt:DigitalSourceType": _SOURCE_TYPES + provenance["digital_source_type"],
        "Iptc4xmpExt:AISystemUsed": f"GPTFace {provenance['model']}".strip(),
        "Iptc4xmpExt:AISystemVersionUsed": provenance["revision"],
        "Iptc4xmpExt:AIPromptInformation": provenance["prompt"],
        "gptface:seed": provenance["seed"],
    }
    lines = [f"   <{name}>{_text(value)}</{name}>" for name, value in properties.items()]
    return _PACKET.format(properties="\n".join(lines)).encode()


def in_words(provenance: dict[str, Any]) -> str:
    """The provenance of one file in a line, where it has a comment and no XMP."""
    told = {
        "digital source type": _SOURCE_TYPES + provenance["digital_source_type"],
        "system": f"GPTFace {provenance['model']} {provenance['revision']}",
        "prompt": provenance["prompt"],
        "seed": provenance["seed"],
    }
    return f"Made with {provenance['software']}; " + "; ".join(f"{name}: {value}" for name, value in told.items())


def _text(value: Any) -> str:
    return escape(_NOT_IN_XML.sub("\ufffd", str(value))[:_MAX_TEXT])


def _software() -> str:
    try:
        return f"GPTFace {metadata.version('gptface')}"
    except metadata.PackageNotFoundError:  # a checkout, or remote code
        return "GPTFace"


def weights_hash(model: Any) -> str:
    """
    Of the fp16 values, so that a checkpoint has one hash whatever the dtype it was opened in.

    It is computed once, and again where weights are others than they were. Their norms tell that, at a fraction of the
    time.
    """
    state = sorted(model.state_dict().items())
    floats = [tensor.detach() for _, tensor in state if tensor.is_floating_point()]
    seen = [name for name, _ in state], torch.stack([norm.float().cpu() for norm in torch._foreach_norm(floats)])
    if model not in _HASHES or _HASHES[model][0][0] != seen[0] or not torch.equal(_HASHES[model][0][1], seen[1]):
        digest = hashlib.sha256()
        for name, tensor in state:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
        _HASHES[model] = seen, digest.hexdigest()[:16]
    return _HASHES[model][1]
