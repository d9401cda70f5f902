"""The image processor: an aligned face picture → `pixel_values` in [-1, 1], with PIL and numpy alone."""

from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling


class GPTFaceImageProcessor(PilBackend):
    """
    Resizes to a square (bicubic), rescales and normalises to [-1, 1]; RGB. It neither finds nor aligns faces: the pipelines do.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 128, "width": 128}
    default_to_square = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    model_input_names = ["pixel_values"]
