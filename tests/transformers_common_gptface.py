"""
The classes that put GPTFace under the common tests of transformers; `run_transformers_common.py` runs them.

Whatever is left out or written anew stands here with its reason.
"""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import tests.test_modeling_common as common
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor
from tests.test_processing_common import ProcessorTesterMixin
from tests.test_tokenization_common import TokenizerTesterMixin
from transformers.testing_utils import torch_device

from gptface import (
    GPTFaceConfig,
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForGuidedGeneration,
    GPTFaceForImageClassification,
    GPTFaceForImageTextMatching,
    GPTFaceForPreTraining,
    GPTFaceImageProcessor,
    GPTFaceImageTokenizer,
    GPTFaceImageTokenizerConfig,
    GPTFaceModel,
    GPTFaceProcessor,
    GPTFaceTokenizer,
)

# Which class is for what: the common tests look it up in lists of names, which hold transformers' own classes alone.
for mapping, name in (
    ("MODEL_MAPPING_NAMES", "GPTFaceModel"),
    ("MODEL_FOR_PRETRAINING_MAPPING_NAMES", "GPTFaceForPreTraining"),
    ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", "GPTFaceForImageClassification"),
):
    setattr(common, mapping, {**getattr(common, mapping), "gptface": name})

CAPTIONS = [
    "a smiling woman with blond hair",
    "a man without a smile",
    "lower newer, the quick brown fox jumps over the lazy dog",
    "this is the first sentence and a test of the input",
]


class GPTFaceModelTester:
    """Odd sizes, so that an exchanged axis shows."""

    def __init__(self, parent, **overrides):
        self.parent = parent
        self.batch_size = 13
        self.seq_length = 7
        self.image_size = 24
        self.num_cells = 9
        self.num_channels = 3
        self.is_training = True
        self.vocab_size = 99
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.intermediate_size = 37
        self.num_labels = 3
        self.encoder_seq_length = self.key_length = self.seq_length + self.num_cells
        self.overrides = overrides

    def get_config(self):
        heads = {
            "attributes": {"labels": ["a", "b", "c"], "problem_type": "multi_label_classification"},
            "expression": {"labels": ["d", "e", "f"], "problem_type": "single_label_classification"},
        }
        image_tokenizer = {
            "image_size": self.image_size,
            "latent_channels": 5,
            "hidden_channels": 8,
            "fsq_levels": [3, 4, 5],
        }
        return GPTFaceConfig(
            image_tokenizer_config=image_tokenizer,
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            max_text_length=11,
            cls_token_id=2,
            sep_token_id=3,
            mask_token_id=4,
            num_labels=self.num_labels,
            heads=heads,
            **self.overrides,
        )

    def prepare_config_and_inputs_for_common(self):
        mask = torch.ones(self.batch_size, self.seq_length, dtype=torch.long, device=torch_device)
        for row in range(self.batch_size):
            mask[row, 2 + row % (self.seq_length - 1) :] = 0
        inputs = {
            "input_ids": ids_tensor([self.batch_size, self.seq_length], self.vocab_size),
            "attention_mask": mask,
            "pixel_values": floats_tensor([self.batch_size, self.num_channels, self.image_size, self.image_size]),
        }
        return self.get_config(), inputs


class GPTFaceModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (
        GPTFaceModel,
        GPTFaceForPreTraining,
        GPTFaceForGuidedGeneration,
        GPTFaceForImageTextMatching,
        GPTFaceForImageClassification,
        GPTFaceForFaceAttributeClassification,
        GPTFaceForFacialExpression,
    )
    test_can_init_all_missing_weights_before_2023 = True
    additional_model_inputs = ["pixel_values"]

    def setUp(self):
        self.model_tester = GPTFaceModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=GPTFaceConfig, hidden_size=36, common_properties=["hidden_size", "num_hidden_layers"]
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """The labels of GPTFace have names and shapes of their own; every class of a common test needs them so."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        rows = torch.arange(self.model_tester.batch_size, device=torch_device)
        if return_labels:
            if issubclass(model_class, GPTFaceForPreTraining):
                inputs["text_labels"] = inputs["input_ids"].clone()
                inputs["image_labels"] = rows[:, None].repeat(1, self.model_tester.num_cells)
            if issubclass(model_class, GPTFaceForPreTraining | GPTFaceForImageTextMatching):
                inputs["match_labels"] = rows % 2
            if model_class is GPTFaceForFacialExpression:
                inputs["labels"] = rows % 3
            if model_class is GPTFaceForFaceAttributeClassification:
                inputs["labels"] = (rows[:, None] % torch.arange(2, 5, device=torch_device) == 0).long()
        return inputs


class GPTFaceOptionsModelTest(GPTFaceModelTest):
    """
    The same with every option that changes the modules; and as a composite model, which some common tests take
    otherwise (it is one by its nested configuration, but both its modalities go through one transformer).
    """

    _is_composite = True

    def setUp(self):
        super().setUp()
        self.model_tester = GPTFaceModelTester(
            self,
            norm_position="post",
            embedding_norm=True,
            code_embedding="levels",
            position_init="sine",
            grid_convolution=True,
        )


class GPTFaceImageTokenizerModelTester:
    def __init__(self, parent):
        self.parent = parent
        self.batch_size = 5
        self.image_size = 24
        self.num_channels = 3
        self.is_training = False

    def get_config(self):
        return GPTFaceImageTokenizerConfig(
            image_size=self.image_size, latent_channels=5, hidden_channels=8, fsq_levels=[3, 4, 5]
        )

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.num_channels, self.image_size, self.image_size]
        return self.get_config(), {"pixel_values": floats_tensor(shape)}


class GPTFaceImageTokenizerTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (GPTFaceImageTokenizer,)
    has_attentions = False
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = GPTFaceImageTokenizerModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=GPTFaceImageTokenizerConfig, has_text_modality=False, common_properties=["image_size"]
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    # As the codecs of transformers (Encodec, DAC): there is neither a layer to report nor a word to embed.
    @unittest.skip(reason="The image tokenizer is convolutional: it has no hidden states of layers")
    def test_hidden_states_output(self):
        pass

    @unittest.skip(reason="The image tokenizer is convolutional: it has no hidden states of layers")
    def test_retain_grad_hidden_states_attentions(self):
        pass

    @unittest.skip(reason="The image tokenizer reads pixels: it has no embeddings of ids")
    def test_model_get_set_embeddings(self):
        pass


def make_tokenizer(max_length=64):
    return GPTFaceTokenizer.train(CAPTIONS, vocab_size=300, max_length=max_length)


class GPTFaceTokenizationTest(TokenizerTesterMixin, unittest.TestCase):
    tokenizer_class = GPTFaceTokenizer
    rust_tokenizer_class = GPTFaceTokenizer

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_tokenizer().save_pretrained(cls.tmpdirname)


class GPTFaceImageProcessingTester(ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        kwargs.setdefault("size", {"height": 20, "width": 20})
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self):
        # The common tester looks for transformers' own classes by the name of a folder.
        return {"pil": GPTFaceImageProcessor}


class GPTFaceImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = GPTFaceImageProcessingTester

    def test_pil_can_run_without_torchvision(self):
        """
        The common test starts a Python that knows transformers alone; the Auto class knows GPTFace after its import.
        """
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sitecustomize.py").write_text("import gptface\n")
            path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
            with mock.patch.dict(os.environ, {"PYTHONPATH": path}):
                super().test_pil_can_run_without_torchvision()

    @unittest.skip(
        reason="A rule for models that live in transformers. GPTFace has one backend on purpose: torchvision resizes "
        "otherwise, so that the same picture would get other codes where it is installed"
    )
    def test_new_models_require_torchvision_backend(self):
        pass


class GPTFaceProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = GPTFaceProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return make_tokenizer()

    @classmethod
    def _setup_image_processor(cls):
        return GPTFaceImageProcessor(size={"height": 24, "width": 24})
