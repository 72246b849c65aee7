"""A model that is used, not trained: forward passes without gradients, and generation.

Generation is greedy: the prompt at once, then one token after another on a key-value cache that
grows by the library's own code. Sampling, beams and static caches are left out.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.batches import make_batch
from peftadvisor.simulator.step import Prepared, Run
from peftadvisor.simulator.trace import NO_LAYER, Owner, Phase, Segment, Trace
from peftadvisor.specs import TrainingSpec


def trace_inference(
    prepared: Prepared, training: TrainingSpec, device: Device, new_tokens: int
) -> Trace:
    """Trace a forward pass with its loss, then the generation of ``new_tokens``.

    The pass is segment STEP_1, generation STEP_2 (none for models that do not generate). Batch
    and lengths are those of ``training``; the rest of it matters as far as it forms the model.
    """
    prepared.model.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return _Inference(prepared, training, device).used(new_tokens)


class _Inference(Run):
    def used(self, new_tokens: int) -> Trace:
        with self.watched() as tracer:
            tracer.segment, tracer.phase, tracer.layer = Segment.STEP_1, Phase.FORWARD, NO_LAYER
            batch = make_batch(self.prepared.base, self.training)
            self._own_all(batch.values(), Owner.INPUT)
            caches = hasattr(self.prepared.base, "generate") and "input_ids" in batch
            out = self.model(**batch, use_cache=True) if caches else self.model(**batch)
            del out
            if new_tokens and caches:
                tracer.segment, tracer.layer = Segment.STEP_2, NO_LAYER
                self._generate(batch, new_tokens)
        return self._finish()

    def _generate(self, batch: dict[str, Any], new_tokens: int) -> None:
        base: Any = self.prepared.base
        config = base.config
        given = {name: tensor for name, tensor in batch.items() if name != "labels"}
        if config.is_encoder_decoder:
            encoded = base.get_encoder()(given["input_ids"], attention_mask=given.get("attention_mask"))
            first = given["input_ids"].new_zeros(len(given["input_ids"]), 1)
            given = {
                "encoder_outputs": encoded,
                "attention_mask": given.get("attention_mask"),
                "decoder_input_ids": first,
            }
        out = self.model(**given, use_cache=True)
        name = "decoder_input_ids" if config.is_encoder_decoder else "input_ids"
        for _ in range(new_tokens - 1):
            given[name] = out.logits[:, -1:].argmax(-1)
            if name == "input_ids" and "attention_mask" in given:
                ones = given["attention_mask"].new_ones(len(given[name]), 1)
                given["attention_mask"] = torch.cat([given["attention_mask"], ones], dim=1)
            given["past_key_values"] = out.past_key_values
            out = self.model(**given, use_cache=True)
