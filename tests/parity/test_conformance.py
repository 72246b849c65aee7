"""Every method keeps its promises on small T5, Llama and BERT; none is skipped silently."""

from __future__ import annotations

import warnings

import pytest
import torch

from peftadvisor.methods import find_method, method_names
from peftadvisor.profilers.conformance import MODELS, check, line

UNAVAILABLE = [name for name in method_names() if find_method(name).unavailable]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [name for name in method_names() if name not in UNAVAILABLE])
def test_the_method_keeps_its_promises(name: str, model: str) -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = check(find_method(name), model)
    print(line(outcome))
    assert outcome.failures == ()
    # A refusal is one sentence that says what the model lacks or what to take instead.
    assert outcome.refused or outcome.trained > 0


def test_few_methods_cannot_be_run() -> None:
    assert len(UNAVAILABLE) < 5
