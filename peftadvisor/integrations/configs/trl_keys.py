"""TRL's keys by what they mean for a prediction. Read in trl 1.16.0."""

from __future__ import annotations

from collections.abc import Mapping

from peftadvisor.specs import Attention

OWN = frozenset(
    {"use_peft", "lora_r", "lora_target_modules", "load_in_4bit", "load_in_8bit", "max_length"}
    | {
        "max_seq_length",
        "dataset_name",
        "dataset_config",
        "dataset_train_split",
        "packing_strategy",
    }
    | {"attn_implementation", "dtype", "torch_dtype", "dataset_text_field", "use_bnb_nested_quant"}
    | {"bnb_4bit_quant_type", "completion_only_loss", "assistant_only_loss", "padding_free"}
    | {"dataset_num_proc", "model_init_kwargs", "accelerate_config", "lora_task_type"}
    | {"eval_packing", "dataset_test_split", "chat_template_path", "activation_offloading"}
    | {"beta", "num_generations", "max_prompt_length", "reward_model_path", "reward_funcs"}
)
"""Keys that mark a config as this tool's, those of its other trainers among them."""

ATTENTION: Mapping[str, Attention] = {
    "sdpa": "sdpa",
    "eager": "eager",
    "flash_attention_2": "flash_attention_2",
    "kernels-community/flash-attn": "flash_attention_2",
    "kernels-community/flash-attn2": "flash_attention_2",
}
"""Attention by the names of transformers and of the Hub's kernels."""

OTHER_TRAINERS = (
    *("beta", "num_generations", "max_prompt_length", "max_completion_length", "reward_funcs"),
    *("reward_model_path", "reward_model_name_or_path", "precompute_ref_log_probs"),
    *("ref_model_init_kwargs", "desirable_weight", "teacher_model_name_or_path", "use_vllm"),
    *("sync_ref_model", "rloo_k", "center_rewards_coefficient"),
)
"""Keys that its trainers have for more than one model, or for pairs."""

REFUSED: Mapping[str, str] = {
    "lora_modules_to_save": "modules trained whole beside adapters are not predicted",
    "lora_target_parameters": "adapters of parameters are not predicted; name modules",
}
"""Keys that make it another run than any predicted here."""

NAMES: Mapping[str, str] = {
    "max_seq_length": "max_length",
    "torch_dtype": "dtype",
    "evaluation_strategy": "eval_strategy",
}
"""Earlier names of keys."""

LEFT_OUT: Mapping[str, str] = {
    "activation_offloading": "offload of activations is left out of the prediction",
    "use_liger_kernel": "Liger's kernels of layers are left out of the prediction",
    "eval_packing": "evaluation is left out",
    "test_split_size": "evaluation is left out",
    "router_aux_loss_coef": "the loss that balances experts is left out of the prediction",
    "use_deepspeed": "write accelerate's switches into a file and name it by accelerate_config",
    "use_fsdp": "write accelerate's switches into a file and name it by accelerate_config",
}
"""Keys of which a note speaks."""

ASIDE = frozenset(
    {"dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "datasets"}
    | {"dataset_streaming", "streaming", "ignore_bias_buffers", "dataset_text_field"}
    | {"dataset_kwargs", "dataset_num_proc", "dataset_batch_size", "eos_token", "pad_token"}
    | {"truncation_mode", "shuffle_dataset", "packing_strategy", "pad_to_multiple_of"}
    | {"completion_only_loss", "assistant_only_loss", "loss_type", "chat_template_path"}
    | {"trust_remote_code", "model_revision", "lora_task_type", "bnb_4bit_quant_storage", "env"}
    | {"num_machines", "machine_rank", "main_process_port", "main_process_ip", "gpu_ids"}
    | {"gradient_checkpointing_use_reentrant", "sanity_check", "config", "num_of_sequences"}
    | {"lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_dora", "use_rslora"}
)
"""Keys of its own without effect on training, or that have none without ``use_peft``."""
