"""A configuration must say the same after a trip through JSON, and refuse what no model can be built from."""

import pytest
from transformers import AutoConfig

from gptface import GPTFaceConfig, GPTFaceImageTokenizerConfig


def test_nested_configuration_survives_saving(tiny_config, tmp_path):
    heads = {
        "mood": {"labels": ["up", "down"], "problem_type": "single_label_classification", "thresholds": [0.3, 0.7]}
    }
    config = tiny_config(heads=heads, norm_position="post", match_trained=True)
    config.save_pretrained(tmp_path)
    for loaded in (GPTFaceConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
        assert isinstance(loaded.image_tokenizer_config, GPTFaceImageTokenizerConfig)
        assert loaded.image_tokenizer_config.fsq_levels == [3, 4, 5]


def test_image_tokenizer_configuration_loads_from_the_folder_of_the_whole_model(tiny_config, tmp_path):
    config = tiny_config()
    config.save_pretrained(tmp_path)
    nested = GPTFaceImageTokenizerConfig.from_pretrained(tmp_path)
    assert nested.to_diff_dict() == config.image_tokenizer_config.to_diff_dict()


def test_derived_sizes(tiny_config):
    config = tiny_config()
    assert (config.num_codes, config.grid_size, config.num_image_tokens) == (3 * 4 * 5, 3, 9)
    learned = tiny_config(image_tokenizer_config={"quantizer": "codebook", "codebook_size": 17})
    assert learned.num_codes == 17
    assert learned.image_tokenizer_config.codebook_dim == learned.image_tokenizer_config.latent_channels == 5
    vqgan = GPTFaceImageTokenizerConfig(backbone="vqgan", image_size=32, block_out_channels=[8, 8, 16])
    assert (vqgan.downsample_factor, vqgan.grid_size) == (4, 8)


def test_defaults_are_the_base_of_the_lineage():
    config = GPTFaceConfig()
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (12, 768, 12)
    assert (config.vocab_size, config.max_text_length) == (30522, 64)
    assert (config.cls_token_id, config.sep_token_id, config.mask_token_id, config.pad_token_id) == (101, 102, 103, 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"norm_position": "middle"}, "norm_position"),
        ({"attention_pattern": "causal"}, "attention_pattern"),
        ({"code_embedding": "sum"}, "code_embedding"),
        ({"position_init": "zero"}, "position_init"),
        ({"hidden_size": 33}, "num_attention_heads"),
        ({"code_embedding": "levels", "image_tokenizer_config": {"quantizer": "codebook"}}, "fsq"),
        ({"attention_pattern": "prefix", "grid_convolution": True}, "later cells"),
        ({"heads": {"mood": {"labels": [], "problem_type": "single_label_classification"}}}, "mood"),
        ({"heads": {"mood": {"labels": ["up", "down"], "problem_type": "ranking"}}}, "mood"),
        ({"image_tokenizer_config": {"backbone": "vae"}}, "backbone"),
        ({"image_tokenizer_config": {"quantizer": "lookup"}}, "quantizer"),
        ({"image_tokenizer_config": {"image_size": 30}}, "multiple"),
    ],
)
def test_a_wrong_choice_is_named(tiny_config, overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**overrides)


def test_a_field_of_the_wrong_type_is_refused(tiny_config):
    with pytest.raises(Exception, match="hidden_size"):
        tiny_config(hidden_size="32")


def test_custom_pipelines_stay_out_of_the_installed_class(tiny_config, tmp_path):
    """With that key `pipeline()` would ask for trust_remote_code although the package is installed."""
    config = tiny_config(custom_pipelines={"guided-face-editing": {"impl": "module.Class"}})
    config.save_pretrained(tmp_path)
    assert "custom_pipelines" not in (tmp_path / "config.json").read_text()
