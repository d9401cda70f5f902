"""The arms in which `gptface evaluate editing` compares kinds of guidance, and what the critic is good for."""

from typing import Any

#: Parameters of an arm; where it says nothing the pipeline's defaults hold.
ARMS: dict[str, dict[str, Any]] = {
    "none": {"guidance_scale": 1.0, "itm_guidance": 0.0},
    "cfg": {"itm_guidance": 0.0},
    "itm": {"guidance_scale": 1.0},
    "both": {},
}

# What the critic reads is the plan: all of its arms draw that first, guided by matching.
_PLAN = {"plan_first": True, "itm_guidance": 4.0}

#: The same of the arms with and without the critic: tokens are drawn again by their confidence, or by the critic; the
#: critic has a say in the guidance; or the best of three is chosen, with the critic's word.
CRITIC_ARMS: dict[str, dict[str, Any]] = {
    "confidence": {**_PLAN, "decoding": "parallel"},
    "critic": {**_PLAN, "decoding": "critic", "corrections": 2},
    "real": {**_PLAN, "decoding": "parallel", "itm_guidance": {"step_size": 4.0, "critic_weight": 0.5}},
    "three": {**_PLAN, "decoding": "parallel", "num_images_per_prompt": 3},
}
