"""The short way from words to codes (`caption_reader`): without it a trained generator did not hear its caption."""

import torch

from gptface import GPTFaceForPreTraining


def test_a_checkpoint_that_gets_a_caption_reader_predicts_as_before_until_it_is_trained(
    tiny_model, tiny_inputs, tmp_path
):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    reading = GPTFaceForPreTraining.from_pretrained(tmp_path, caption_reader=True).eval()
    inputs = tiny_inputs(model.config)
    torch.testing.assert_close(reading(**inputs).image_logits, model(**inputs).image_logits)


def test_only_the_codes_hear_it(tiny_model, tiny_inputs):
    reading = tiny_model(caption_reader=True)
    inputs = tiny_inputs(reading.config)
    before = reading(**inputs)
    with torch.no_grad():
        reading.lm_head.caption_reader.output.weight.zero_()
        reading.lm_head.caption_reader.output.bias.zero_()
    after = reading(**inputs)
    assert (before.image_logits - after.image_logits).abs().max() > 1e-3
    torch.testing.assert_close(before.text_logits, after.text_logits)
    torch.testing.assert_close(before.match_logits, after.match_logits)


def test_padding_of_the_caption_changes_no_code(tiny_model, tiny_inputs):
    model = tiny_model(caption_reader=True, match_head="cross")
    inputs = tiny_inputs(model.config, batch=2, text_length=5)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    padded = dict(inputs)
    padded["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (0, 3), value=model.config.pad_token_id)
    padded["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 3))
    torch.testing.assert_close(model(**padded).image_logits, model(**inputs).image_logits, atol=1e-5, rtol=1e-5)


def test_without_a_caption_the_empty_one_is_read(tiny_model, tiny_inputs):
    model = tiny_model(caption_reader=True)
    inputs = tiny_inputs(model.config)
    picture = {"image_codes": inputs["image_codes"], "image_mask": inputs["image_mask"]}
    empty = model.gptface.empty_caption(2)
    torch.testing.assert_close(model(**picture).image_logits, model(**picture, input_ids=empty).image_logits)


def test_words_without_a_face_still_have_logits(tiny_model, tiny_inputs):
    model = tiny_model(caption_reader=True)
    inputs = tiny_inputs(model.config)
    output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    assert output.image_logits.shape[1] == 0 and torch.isfinite(output.text_logits).all()


def test_the_loss_of_the_codes_trains_the_reading_of_the_words(tiny_model, tiny_inputs):
    model = tiny_model(caption_reader=True).train()
    inputs = tiny_inputs(model.config)
    model(**inputs, image_labels=inputs["image_codes"]).image_loss.backward()
    for name, parameter in model.lm_head.caption_reader.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
