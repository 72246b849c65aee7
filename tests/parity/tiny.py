"""Tiny models for parity tests, and the same training loop on real CPU tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from peftadvisor.methods import find_method
from peftadvisor.simulator.optimizers import make_optimizer
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 3200,
    "max_position_embeddings": 512,
}
T5_SMALL = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 512,
    "d_ff": 2048,
    "d_kv": 64,
    "num_heads": 8,
    "num_layers": 6,
    "num_decoder_layers": 6,
    "vocab_size": 32128,
    "feed_forward_proj": "relu",
    "is_encoder_decoder": True,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
CONFIGS: Mapping[str, Mapping[str, Any]] = {"llama-4-layers": LLAMA, "t5-small": T5_SMALL}
METHODS = ("full", "lora", "ia3", "prompt-tuning", "ln-tuning", "houlsby")


def spec(config: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(
        id=str(config["model_type"]),
        config=config,
        config_key="tiny",
        parameters=None,
        checkpoint_parameters=None,
        provenance="made for a test",
    )


class RealRun:
    """A real model on the CPU, trained as the simulator trains it."""

    def __init__(self, config: Mapping[str, Any], method: str, training: TrainingSpec) -> None:
        import transformers

        raw = dict(config)
        made = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
        made.use_cache = False
        cls = getattr(transformers, config["architectures"][0])
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[training.dtype]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attention = None if training.attention == "sdpa" else training.attention
            model = cls._from_config(made, dtype=dtype, attn_implementation=attention)
            model.train()
            if training.gradient_checkpointing != "none":
                model.gradient_checkpointing_enable({"use_reentrant": False})
                model.enable_input_require_grads()
            chosen = find_method(method)
            self.model: nn.Module = chosen.attach(model, chosen.settings(MethodSpec(name=method)))
        self.training = training
        self.is_t5 = config["model_type"] == "t5"
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(training, self.parameters)

    def static_bytes(self) -> int:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values())

    def forward_backward(self) -> None:
        t = self.training
        ids = torch.zeros(t.micro_batch_size, t.seq_len, dtype=torch.long)
        length = t.target_len if self.is_t5 else t.seq_len
        labels = torch.zeros(t.micro_batch_size, length, dtype=torch.long)
        out = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
        torch.autograd.backward([out.loss])

    def step(self, clip: Callable[[list[torch.Tensor], float], None]) -> None:
        self.forward_backward()
        clip([p.grad for p in self.parameters if p.grad is not None], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
