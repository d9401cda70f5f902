"""Behind a firewall and in a container whose home is read-only."""

from pathlib import Path

import pytest
from processes import run_python

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"

#: Any look at the network is an error.
CODE = """
import socket


def refuse(*_, **__):
    raise AssertionError("the network was asked")


socket.socket.connect = socket.getaddrinfo = refuse
from transformers import pipeline
import gptface

report(scores=pipeline("facial-expression")("PORTRAIT"))
"""


@pytest.mark.report("Without network, or with a home that cannot be written, nothing opens")
def test_the_default_pipeline_needs_neither_network_nor_a_home(tmp_path):
    """The package's checkpoint opens, and a face is found, without a look at the network or a file in any cache."""
    nowhere = {"HOME": "/dev/null", "HF_HOME": "/dev/null/huggingface", "XDG_CACHE_HOME": "/dev/null/cache"}
    scores = run_python(CODE.replace("PORTRAIT", str(PORTRAIT)), tmp_path, True, nowhere)["scores"]
    assert len(scores) == 7 and sum(entry["score"] for entry in scores) == pytest.approx(1, abs=1e-3)
