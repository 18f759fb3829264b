"""Networks for use elsewhere: TorchScript and ONNX graphs, safetensors, checkpoints with the originals' layout.

    export_network(open_network("hardnet"), "hardnet.onnx")
    export_network(open_network("mine.safetensors"), "mine.pt", with_patches=True)

Every file is read back and compared with the network before it is left behind.
"""

from .files import FORMS, Exported, export_network, form_of

__all__ = ["FORMS", "Exported", "export_network", "form_of"]
