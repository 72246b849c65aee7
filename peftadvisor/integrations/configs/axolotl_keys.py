"""What axolotl's keys and names mean to us. Read in axolotl 0.19.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from peftadvisor.data.models import find_model
from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports.schedule import OPTIMIZERS as TRAINER_OPTIMIZERS
from peftadvisor.specs import Attention, Loss, Optimizer

VERSION = "0.19.0"

OPTIMIZERS: Mapping[str, Optimizer] = {
    **{name: cast(Optimizer, ours) for ours, name in TRAINER_OPTIMIZERS.items()},
    "adamw_8bit": "adamw-8bit",
    "adamw_torch_8bit": "adamw-8bit",
}
"""torchao's 8-bit AdamW keeps states of a byte each and a scale per 256, as bitsandbytes does."""

ATTENTION: Mapping[str, Attention] = {
    "sdpa": "sdpa",
    "eager": "eager",
    "fp8": "sdpa",
    "flash_attention_2": "flash_attention_2",
    "flash_attention_3": "flash_attention_2",
    "flash_attention_4": "flash_attention_2",
    "flash_attention_torch": "flash_attention_2",
    "kernels-community/flash-attn2": "flash_attention_2",
    "kernels-community/flash-attn3": "flash_attention_2",
    "kernels-community/vllm-flash-attn3": "flash_attention_2",
    "flex_attention": "flash_attention_2",
    "xformers": "flash_attention_2",
    "sage": "flash_attention_2",
    "kernels-community/sage-attention": "flash_attention_2",
}
"""What each backend is predicted as: those that keep packed documents apart without a mask are
predicted as flash attention 2."""

ATTENTION_SWITCHES: Mapping[str, str] = {
    "xformers_attention": "xformers",
    "sage_attention": "sage",
    "flex_attention": "flex_attention",
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}
"""Switches of earlier versions, the first that is on wins."""

LIGER = "axolotl.integrations.liger.LigerPlugin"
LIGER_PLUGIN, CUT_PLUGIN = "LigerPlugin", "CutCrossEntropyPlugin"
LOSSES: Mapping[str, Loss] = {
    "liger_fused_linear_cross_entropy": "fused-linear",
    "liger_cross_entropy": "fused",
    "cut_cross_entropy": "fused-linear",
    "flash_attn_cross_entropy": "fused",
    "chunked_cross_entropy": "torch",
}
"""What each loss is predicted as; axolotl refuses more than one."""

NON_REENTRANT_TYPES = frozenset({"gemma4", "gemma4_unified"})
"""Types whose checkpointing axolotl makes non-reentrant, whatever the file says."""
PRETRAINING_TYPES = ("completion", "pretrain")
STARTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "true": ("", {}),
    "false": ("", {}),
    "gaussian": ("", {}),
    "orthogonal": ("", {}),
    "pissa": ("pissa", {"init": "pissa"}),
    "pissa_niter_4": ("pissa", {"init": "pissa_niter_4"}),
    "pissa_niter_16": ("pissa", {"init": "pissa_niter_16"}),
    "olora": ("olora", {}),
    "loftq": ("loftq", {}),
}
"""``peft_init_lora_weights``: the method that starts so, none where it is LoRA all the same."""


def on(value: Any) -> bool:
    """Whether a value turns a feature on: not null, false, 0, off or empty."""
    return bool(value) and str(value).lower() not in ("false", "no", "off", "none", "0")


def model_type(name: Any) -> str | None:
    """The type of a model that is on file, None of others."""
    try:
        return find_model(str(name)).model_type
    except UsageError:
        return None


def several(value: Any) -> bool:
    """Whether a number of GPUs is above 1."""
    return on(value) and str(value) != "1"


def _default_on(value: Any) -> bool:
    return value is None or on(value)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A key that matters and that the prediction does not follow: what to say, and when."""

    text: str
    when: Callable[[Any], bool] = on


_EXPERTS = "how experts are computed is left out"
_LIGER_KERNELS = "Liger's kernels other than the loss are left out"
LEFT_OUT: Mapping[str, LeftOut] = {
    "activation_offloading": LeftOut("offload of activations is predicted as checkpointing"),
    "selective_checkpointing": LeftOut("selective checkpointing is predicted as full"),
    "layer_offloading": LeftOut("offload of layers to the CPU is left out"),
    "ple_cpu_offload": LeftOut("offload of embeddings to the CPU is left out"),
    "tiled_mlp": LeftOut("tiled feed-forward layers are left out"),
    "torch_compile": LeftOut("torch.compile is left out"),
    "fp8": LeftOut("matrix products in fp8 are predicted in 16 bits"),
    "qat": LeftOut("quantization-aware training is left out"),
    "context_parallel_size": LeftOut("each sample is predicted on one GPU", several),
    "sequence_parallel_degree": LeftOut("each sample is predicted on one GPU", several),
    "tensor_parallel_size": LeftOut("tensor parallelism is left out", several),
    "expert_parallel_size": LeftOut("expert parallelism is left out", several),
    "dp_replicate_size": LeftOut("FSDP's replicas are predicted as shards", several),
    "quantize_moe_experts": LeftOut("4-bit experts are predicted in 16 bits"),
    "use_onebitllms": LeftOut("layers of 1 bit are predicted in 16"),
    "llama4_linearized_experts": LeftOut(_EXPERTS),
    "experts_implementation": LeftOut(_EXPERTS),
    "use_scattermoe": LeftOut(_EXPERTS),
    "use_sonicmoe": LeftOut(_EXPERTS),
    "use_eaft": LeftOut("weights of tokens in the loss are left out"),
    "flash_optimum": LeftOut("BetterTransformer is left out"),
    "use_kernels": LeftOut("kernels from the Hub are left out"),
    "relora": LeftOut("ReLoRA's merges are left out"),
    "relora_steps": LeftOut("ReLoRA's merges are left out"),
    "reinit_weights": LeftOut("weights are predicted as loaded, not as made anew"),
    "auto_find_batch_size": LeftOut("the batch size is predicted as written, not as found"),
    "lora_modules_to_save": LeftOut(
        "modules of 'lora_modules_to_save' are predicted as frozen, so memory is too low"
    ),
    "peft_trainable_token_indices": LeftOut("single trained tokens are left out"),
    "lora_target_parameters": LeftOut("LoRA on 'lora_target_parameters' is left out"),
    "lora_rank_pattern": LeftOut("'lora_rank_pattern' is left out: one rank for all layers"),
    "peft_layers_to_transform": LeftOut("LoRA is predicted in all layers"),
    "peft_layer_replication": LeftOut("replicated layers are left out"),
    "peft_autocast_adapter_dtype": LeftOut(
        "adapters are predicted in fp32", lambda value: value is not None and not on(value)
    ),
    "lora_model_dir": LeftOut("rank and targets are predicted as written, not as in the adapter"),
    "embeddings_skip_upcast": LeftOut("the dtype of embeddings is predicted as if upcast"),
    "fp32_norms": LeftOut("norms in fp32 are left out"),
    "liger_rope": LeftOut(_LIGER_KERNELS),
    "liger_rms_norm": LeftOut(_LIGER_KERNELS),
    "liger_rms_norm_gated": LeftOut(_LIGER_KERNELS),
    "liger_layer_norm": LeftOut(_LIGER_KERNELS),
    "liger_swiglu": LeftOut(_LIGER_KERNELS),
    "liger_glu_activation": LeftOut(_LIGER_KERNELS),
    "flash_attn_fuse_mlp": LeftOut("fused feed-forward layers are left out"),
    "fused_attn_kernel": LeftOut("fused kernels of attention are left out"),
    "model_config": LeftOut("overrides of the model's config are left out"),
    "overrides_of_model_config": LeftOut("overrides of the model's config are left out"),
    "overrides_of_model_kwargs": LeftOut("overrides of how the model is loaded are left out"),
    "max_memory": LeftOut("limits of memory for loading are left out"),
    "gpu_memory_limit": LeftOut("limits of memory for loading are left out"),
    "processor_type": LeftOut("images and sound are left out"),
    "fsdp_config.offload_params": LeftOut("FSDP's offload of weights is left out"),
    "fsdp_config.fsdp_offload_params": LeftOut("FSDP's offload of weights is left out"),
    "test_datasets": LeftOut("evaluation is left out"),
    "val_set_size": LeftOut("evaluation is left out", lambda value: on(value) and value != 0.0),
}

_FSDP = (
    *("auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params", "state_dict_type"),
    *("final_state_dict_type", "sync_module_states", "cpu_ram_efficient_loading"),
    *("use_orig_params", "limit_all_gathers", "forward_prefetch", "backward_prefetch"),
    *("mixed_precision_policy", "cpu_offload_pin_memory", "version"),
)
IGNORED = frozenset(
    {
        *(f"fsdp_config.{prefix}{name}" for name in _FSDP for prefix in ("", "fsdp_")),
        # The model, its tokenizer and its files.
        *("base_model_config", "base_model_ignore_patterns", "cls_model_config", "model_type"),
        *("type_of_model", "model_revision", "revision_of_model", "trust_remote_code"),
        *("low_cpu_mem_usage", "experimental_skip_move_to_device", "device", "device_map"),
        *("special_tokens", "tokens", "added_tokens_overrides", "resize_token_embeddings_to_32x"),
        *("mean_resizing_embeddings", "shrink_embeddings", "fix_untrained_tokens"),
        *("is_falcon_derived_model", "is_llama_derived_model", "is_mistral_derived_model"),
        *("is_qwen_derived_model", "lora_fan_in_fan_out", "lora_on_cpu", "merge_lora"),
        *("merge_method", "lora_alpha_pattern", "peft_ensure_weight_tying", "relora_cpu_offload"),
        *("relora_prune_ratio", "relora_prune_method", "relora_warmup_steps"),
        *("qlora_sharded_model_loading", "lisa_layers_attribute", "fp32_norm_classes"),
        # Data: how it is found, read and mixed.
        *("shuffle_merged_datasets", "shuffle_before_merging_datasets", "skip_prepare_dataset"),
        *(
            "push_dataset_to_hub",
            "hf_use_auth_token",
            "num_dataset_shards_to_save",
            "is_preprocess",
        ),
        *("remove_unused_columns", "train_on_inputs", "group_by_length", "min_sample_len"),
        *("excess_length_strategy", "curriculum_sampling", "multipack_real_batches", "streaming"),
        *("streaming_multipack_buffer_size", "pretrain_multipack_buffer_size"),
        *("pretrain_multipack_attn", "pretraining_sample_concatenation", "pad_to_multiple_of"),
        *("default_system_message", "eot_tokens", "total_num_tokens", "total_supervised_tokens"),
        *("batch_flattening", "max_packed_sequence_len", "preprocess_iterable"),
        # Learning, beside the rate.
        *("weight_decay", "warmup_steps", "warmup_ratio", "optim_args", "neftune_noise_alpha"),
        *("noisy_embedding_alpha", "embedding_lr", "embedding_lr_scale", "loraplus_lr_embedding"),
        *("torchdistx_path", "optim_target_modules", "eaft_alpha", "eaft_k", "flash_attn_rms_norm"),
        # Where and when: processes, numbers, logs, files.
        *("strict", "debug", "seed", "tf32", "local_rank", "world_size", "ddp", "use_ray"),
        *("ray_run_name", "resources_per_worker", "accelerator_config", "gc_steps"),
        *("gc_collect_steps", "torch_empty_cache_steps", "output_dir", "resume_from_checkpoint"),
        *("auto_resume_from_checkpoints", "load_best_model_at_end", "metric_for_best_model"),
        *("greater_is_better", "loss_watchdog_threshold", "loss_watchdog_patience"),
        *("early_stopping_patience", "use_tensorboard", "profiler_steps", "profiler_steps_start"),
        *("include_tokens_per_second", "include_tkps", "axolotl_config_path", "evals_per_epoch"),
        *("evaluation_strategy", "do_causal_lm_eval", "do_bench_eval", "generate_samples"),
        *("num_generation_samples", "dynamic_checkpoint", "vllm", "trl", "deepcompile"),
        *("torch_compile_backend", "torch_compile_mode", "torch_compile_options"),
        *("chunked_cross_entropy_num_chunks", "tiled_mlp_num_shards", "tiled_mlp_use_original_mlp"),
        *("flex_attn_compile_kwargs", "fp8_config", "fp8_enable_fsdp_float8_all_gather"),
        *("liger_kernel_impl", "liger_use_token_scaling", "heads_k_stride", "ring_attn_func"),
        *("center_rewards_coefficient", "use_wandb", "use_mlflow", "use_comet", "use_trackio"),
        *("use_swanlab", "use_otel_metrics", "freeze_mm_modules", "diffusion", "llmcompressor"),
    }
)
"""Keys without effect on memory, time or the rules of quality."""
PREFIXES = (
    *("adam_", "bench_", "chat_template", "comet_", "cosine_", "dataloader_", "dataset_", "ddp_"),
    *(
        "eval_",
        "generation_",
        "gptq_",
        "gradio_",
        "hf_mlflow_",
        "hub_",
        "jagged_",
        "logging_",
        "lr_",
    ),
    *("mlflow_", "otel_", "processor_", "sample_packing_", "save_", "saves_", "swanlab_"),
    *("tokenizer_", "trackio_", "wandb_", "x-", "x_"),
)
"""How further such keys begin."""
