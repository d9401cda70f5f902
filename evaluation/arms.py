"""The arms in which `gptface evaluate editing` compares kinds of guidance."""

#: Parameters of an arm; where it says nothing the pipeline's defaults hold.
ARMS: dict[str, dict[str, float]] = {
    "none": {"guidance_scale": 1.0, "itm_guidance": 0.0},
    "cfg": {"itm_guidance": 0.0},
    "itm": {"guidance_scale": 1.0},
    "both": {},
}
