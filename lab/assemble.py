"""
Joins what the GPU run gave into one checkpoint: model, refiner and face parser, fp16.

    python lab/assemble.py MODEL TARGET [--refiner FOLDER] [--parser FOLDER] [--processor gptface/assets]
"""

import argparse
from pathlib import Path

import torch

import gptface
from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner
from gptface.training.release import save_release


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--refiner", type=Path)
    parser.add_argument("--parser", type=Path)
    parser.add_argument("--processor", type=Path, default=Path(gptface.DEFAULT_CHECKPOINT))
    options = parser.parse_args()
    model = gptface.GPTFaceForPreTraining.from_pretrained(options.model, dtype=torch.float32)
    if options.refiner:
        refiner = GPTFaceRefiner.from_pretrained(options.refiner, dtype=torch.float32)
        model.config.image_tokenizer_config.refiner_config = refiner.config
        model.image_tokenizer.refiner = refiner
    if options.parser:
        face_parser = GPTFaceParser.from_pretrained(options.parser, dtype=torch.float32)
        model.config.face_parser_config = face_parser.config
        model.gptface.face_parser = face_parser
    save_release(model, gptface.GPTFaceProcessor.from_pretrained(options.processor), options.target)


if __name__ == "__main__":
    main()
