"""Sharded over two processes, a model must learn what it would learn whole: FSDP2 with the layers that
`accelerate_fsdp.yaml` names.
"""

from pathlib import Path

import yaml

from gptface.training import pretraining as pretrain_module

SCRIPT = """
    import copy, sys

    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining

    folder, wrapped = sys.argv[1:]
    torch.set_num_threads(1)
    whole = GPTFaceForPreTraining.from_pretrained(folder)
    sharded = copy.deepcopy(whole)
    mesh = init_device_mesh("cpu", (2,))
    layers = [module for module in sharded.modules() if type(module).__name__ == wrapped]
    assert len(layers) == whole.config.num_hidden_layers
    for module in (*layers, sharded):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    ids = torch.tensor([[whole.config.cls_token_id, 7, 8, whole.config.sep_token_id]] * 2)
    codes = torch.arange(2 * whole.config.num_image_tokens).view(2, -1) % whole.config.num_codes
    mask = codes % 3 == 0
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "text_labels": torch.where(ids == 7, 7, -100),
        "image_codes": codes,
        "image_mask": mask,
        "image_labels": torch.where(mask, codes, -100),
        "match_labels": torch.tensor([1, 0]),
    }
    losses = []
    for model in (whole, sharded):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)  # sees a sum in place of a mean
        for _ in range(3):
            outputs = model(**inputs)
            optimizer.zero_grad()
            outputs.loss.backward()
            optimizer.step()
        losses.append(float(outputs.loss))
    assert abs(losses[0] - losses[1]) < 1e-4, losses
    for (name, one), other in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        assert isinstance(other, DTensor), name
        assert torch.allclose(one, other.full_tensor(), atol=2e-5), name
    torch.distributed.destroy_process_group()
    print("same", losses)
"""


def test_a_sharded_model_learns_what_it_learns_whole(finished_run, run_two_ranks):
    recipe = Path(pretrain_module.__file__).parent / "recipes/accelerate_fsdp.yaml"
    wrapped = yaml.safe_load(recipe.read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    process = run_two_ranks(SCRIPT, finished_run / "final", wrapped)
    assert process.stdout.count("same") == 2, process.stderr[-3000:]
