"""A model that is used, not trained: forward passes without gradients, and generation.

Generation is greedy: the prompt at once, then one token after another on a key-value cache that
grows by the library's own code. Sampling, beams and static caches are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
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
    """Trace forward passes with their loss, then the generation of ``new_tokens``.

    The first pass is segment STEP_1. ACCUMULATE is a second that begins while the output of the
    first is held, as in a loop that assigns it. Generation is STEP_2 (none for models that do not
    generate), when all of that is gone. Batch and lengths are those of ``training``; the rest of
    it matters as far as it forms the model.
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
            options = {"use_cache": True} if caches else {}
            out = self.model(**batch, **options)
            tracer.segment, tracer.layer = Segment.ACCUMULATE, NO_LAYER
            out = self.model(**batch, **options)
            del out
            if new_tokens and caches:
                tracer.segment, tracer.layer = Segment.STEP_2, NO_LAYER
                generate(self.model, self.prepared.base, batch, new_tokens)
        return self._finish()


def generate(model: Any, base: Any, batch: Mapping[str, torch.Tensor], new_tokens: int) -> None:
    """Greedy generation: the prompt at once, then token by token on the growing cache.

    ``base`` is the transformers model inside of ``model``; ``batch`` holds ids and mask [b, s].
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    name = "input_ids"
    if base.config.is_encoder_decoder:
        name = "decoder_input_ids"
        encoded = base.get_encoder()(ids, attention_mask=mask)
        start = ids.new_zeros(len(ids), 1)
        given = {"encoder_outputs": encoded, "attention_mask": mask, name: start}
    out = model(**given, use_cache=True)
    for _ in range(new_tokens - 1):
        given[name] = out.logits[:, -1:].argmax(-1)
        if name == "input_ids":
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            given["attention_mask"] = mask
        given["past_key_values"] = out.past_key_values
        out = model(**given, use_cache=True)
