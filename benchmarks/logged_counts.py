"""Trained parameters, three ways, beside 45 logged runs: formula, real module, simulation.

python benchmarks/logged_counts.py
"""

from __future__ import annotations

import warnings

from peftadvisor.data.measured_runs import logged_counts
from peftadvisor.data.models import find_model
from peftadvisor.methods import find_method
from peftadvisor.methods.sites import layout_of
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.build import build_model
from peftadvisor.simulator.step import prepare, trace_run
from peftadvisor.specs import MethodSpec, TrainingSpec

TRAINING = TrainingSpec(micro_batch_size=1, seq_len=16, target_len=16)


def main() -> None:
    """One line per logged run."""
    warnings.simplefilter("ignore")
    wrong = 0
    for row in logged_counts():
        model, method = find_model(row.model), find_method(row.method)
        formula = method.trainable(layout_of(build_model(model, TRAINING)), method.defaults)
        prepared = prepare(model, MethodSpec(name=row.method), TRAINING)
        real = sum(p.numel() for p in prepared.model.parameters() if p.requires_grad)
        trace = trace_run(prepared, TRAINING, Device((8, 0)))
        simulated = sum(trained for _, trained, _ in trace.parameters_by_tag.values())
        same = formula == real == simulated and f"{formula:.6e}" == row.printed
        wrong += not same
        print(
            f"{row.model:9} {row.logged_as:19} logged {row.printed}  formula {formula:>13,}  "
            f"module {real:>13,}  simulated {simulated:>13,}  {'same' if same else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{len(logged_counts()) - wrong} of {len(logged_counts())} the same")


if __name__ == "__main__":
    main()
