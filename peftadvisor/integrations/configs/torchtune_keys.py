"""What torchtune's keys and components mean to us. Read in torchtune 0.6.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from peftadvisor.integrations.configs.reader import switch
from peftadvisor.integrations.exports.torchtune import OPTIMIZERS
from peftadvisor.specs import Loss, Optimizer, Task

VERSION = "0.6.1"
ASSUMED_LENGTH = 512
"""Tokens of a sample where the file sets no limit."""

REQUIRED = (
    *("model", "tokenizer", "dataset", "optimizer", "loss", "batch_size", "epochs"),
    "gradient_accumulation_steps",
)
REFUSED: Mapping[str, str] = {
    "teacher_model": "distils from a second model",
    "teacher_checkpointer": "distils from a second model",
    "ref_checkpointer": "learns from preferences beside a second model",
    "ref_policy_checkpointer": "learns from rewards beside other models",
    "reward_and_value_model": "learns from rewards beside other models",
    "policy_model": "learns from rewards beside other models",
}

LOSSES: Mapping[str, Loss] = {
    "torch.nn.crossentropyloss": "torch",
    "torch.nn.functional.cross_entropy": "torch",
    "torchtune.modules.loss.cewithchunkedoutputloss": "fused",
}
"""The loss in chunks holds a log-softmax in fp32 and gradients in 16 bits of all logits, 6 bytes
for each, as a fused loss does."""

TASKS: Mapping[str, Task] = {
    "text_completion_dataset": "pretraining",
    "wikitext_dataset": "pretraining",
    "cnn_dailymail_articles_dataset": "pretraining",
    "samsum_dataset": "summarization",
}
"""What data sets are for that hold no instructions."""

LEFT_OUT: Mapping[str, str] = {
    "enable_activation_offloading": "offload of activations is predicted as checkpointing",
    "ac_mode": "checkpointing of some layers is left out",
    "optimizer_in_bwd": "steps during backward are left out: less memory than predicted",
    "optimizer.amsgrad": "AMSGrad's third state is left out",
    "optimizer.momentum": "the state of SGD's momentum is left out",
    "compile": "torch.compile is left out",
    "quantizer": "quantization-aware training is left out",
    "fsdp_cpu_offload": "FSDP's offload of weights is left out",
    "fsdp.cpu_offload": "FSDP's offload of weights is left out",
    "tensor_parallel_dim": "tensor parallelism is left out",
    "model.apply_lora_to_output": "LoRA on the head is left out",
}

_DATA = (
    *("_component_", "source", "data_files", "data_dir", "split", "subset", "name", "column"),
    *("column_map", "train_on_input", "new_system_prompt", "conversation_column"),
    *("conversation_style", "add_eos", "filter_fn", "prompt_template", "split_across_pack"),
    *("revision", "streaming", "trust_remote_code", "cache_dir", "num_proc", "token"),
    *("shuffle", "weight", "masking_strategy", "message_transform", "skip_unavailable"),
)
_TOKENIZER = (
    *("_component_", "path", "merges_file", "vocab_path", "merges_path", "special_tokens_path"),
    *("special_tokens", "prompt_template", "truncation_type", "tokenizer_json_path"),
)
_OPTIMIZER = (
    *("weight_decay", "betas", "eps", "nesterov", "dampening", "maximize", "capturable"),
    *("differentiable", "percentile_clipping", "block_wise", "min_8bit_size", "is_paged"),
)
IGNORED = frozenset(
    {
        *(f"dataset.{name}" for name in _DATA),
        *(f"tokenizer.{name}" for name in _TOKENIZER),
        *(f"optimizer.{name}" for name in _OPTIMIZER),
        *("output_dir", "checkpointer", "resume_from_checkpoint", "save_adapter_weights_only"),
        *("adapter_checkpoint", "enable_async_checkpointing", "seed", "shuffle", "collate_fn"),
        *("lr_scheduler", "metric_logger", "log_every_n_steps", "log_peak_memory_stats"),
        *("log_level", "profiler", "device", "low_cpu_ram", "custom_sharded_layers"),
        *("cudnn_deterministic_mode", "tensor_parallel_plan", "fake_quant_after_n_steps"),
        *("ac_option", "memory_efficient_fsdp_wrap", "loss.num_output_chunks"),
        *("loss.ignore_index", "loss.reduction", "model.image_size", "dataloader"),
    }
)
"""Keys without effect on memory, time or the rules of quality."""
PREFIXES = ("checkpointer.", "metric_logger.", "profiler.", "lr_scheduler.", "quantizer.")


def optimizer_of(part: Mapping[str, Any]) -> Optimizer:
    """The optimizer of a component with its switches ``fused`` and ``foreach``.

    Raises:
        ValueError: it is none of those that are predicted.
    """
    name = str(part.get("_component_"))
    known = list(dict.fromkeys(found["_component_"] for found in OPTIMIZERS.values()))
    if name not in known:
        raise ValueError(f"known here: {', '.join(known)}")
    if name != "torch.optim.AdamW":
        of_name = {found["_component_"]: ours for ours, found in OPTIMIZERS.items()}
        return cast(Optimizer, of_name[name])
    if switch(part.get("fused") or False):
        return "adamw-fused"
    foreach = part.get("foreach")
    return "adamw" if foreach is None or switch(foreach) else "adamw-loop"
