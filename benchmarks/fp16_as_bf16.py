"""Which model types take as much in fp16 as in bf16: allocated peak, events and sizes compared.

    python benchmarks/fp16_as_bf16.py

Simulates the smallest bundled model of each type in both, with LoRA and in full; needs torch and
about three minutes. What it says stands in ``peftadvisor/simulator/obtain.py``.
"""

from __future__ import annotations

from peftadvisor.data.models import find_model, model_ids
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.library import BUNDLED
from peftadvisor.simulator.obtain import FP16_AS_BF16, Simulated
from peftadvisor.simulator.record import record_point
from peftadvisor.specs import DType, MethodSpec, ModelSpec, TrainingSpec

POINT = (2, 128, 64)  # batch, length, decoder length


def taken(model: ModelSpec, method: str, dtype: DType) -> tuple[int, int, int]:
    """Allocated peak, number of events, and bytes of all storages."""
    b, s, t = POINT
    training = TrainingSpec(micro_batch_size=b, seq_len=s, target_len=t, dtype=dtype)
    recording = record_point(model, MethodSpec(name=method), training, Device((8, 0)))
    simulated = Simulated(recording, POINT, False, "simulated directly")
    events, sizes = simulated.expand()
    return simulated.allocated_peak(), len(events), int(sizes.sum())


def main() -> int:
    smallest: dict[str, ModelSpec] = {}
    for model in map(find_model, model_ids()):
        if (BUNDLED / f"{model.config_key}.zip").exists():
            known = smallest.get(model.model_type)
            if known is None or (model.parameters or 0) < (known.parameters or 0):
                smallest[model.model_type] = model
    wrong = 0
    for kind, model in sorted(smallest.items()):
        alike = all(
            taken(model, method, "bf16") == taken(model, method, "fp16")
            for method in ("lora", "full")
        )
        wrong += alike != (kind in FP16_AS_BF16)
        print(f"{kind:12} {model.id:40} {'the same' if alike else 'differs'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
