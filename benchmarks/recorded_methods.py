"""Record every method on a small Llama of twelve layers and hold it against direct simulation.

    python benchmarks/recorded_methods.py [METHOD ...]

One line per method: layers repeated or the model recorded whole, trained parameters by formula
and from the recording, and whether every allocation of a direct run at full depth is the same.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from peftadvisor.errors import PeftAdvisorError
from peftadvisor.methods import find_method, method_names
from peftadvisor.methods.sites import layout_of
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.build import build_model
from peftadvisor.simulator.deepening import verify
from peftadvisor.simulator.record import record
from peftadvisor.simulator.step import simulate
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

LAYERS = 12
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
}
MODEL = ModelSpec(
    id="small Llama",
    config=CONFIG,
    config_key="small",
    parameters=None,
    checkpoint_parameters=None,
    provenance="made for a check",
)
POINT = (4, 120, 0)


def outcome(name: str) -> str:
    """One line of what came of a method."""
    spec, training, device = MethodSpec(name=name), TrainingSpec(), Device((8, 0))
    here = TrainingSpec(micro_batch_size=POINT[0], seq_len=POINT[1])
    method = find_method(name)
    try:
        recording = record(MODEL, spec, training, device)
        units = recording.facts["units"]
        verify(recording, simulate(MODEL, spec, here, device), POINT, units)
    except PeftAdvisorError as error:
        return f"{name:20} {type(error).__name__}: {error}"
    formula = method.trainable(layout_of(build_model(MODEL, training)), method.settings(spec))
    trained = recording.parameter_counts(units)[1]
    how = "layers repeated" if units else "recorded whole "
    verdict = "same" if trained == formula else "DIFFERENT"
    return f"{name:20} {how} {trained:>9,} {formula:>9,} {verdict}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for each in sys.argv[1:] or method_names():
        print(outcome(each), flush=True)
