"""LLaMA-Factory's keys by what they mean for a prediction. Read in llamafactory 0.9.5."""

from __future__ import annotations

from collections.abc import Mapping

OWN = frozenset(
    {"stage", "finetuning_type", "cutoff_len", "dataset_dir", "template", "lora_target"}
    | {"lora_rank", "quantization_bit", "pure_bf16", "use_galore", "use_apollo", "use_badam"}
    | {"loraplus_lr_ratio", "pissa_init", "upcast_layernorm", "neat_packing", "use_reentrant_gc"}
    | {"disable_gradient_checkpointing", "enable_liger_kernel", "oft_target", "plot_loss"}
    | {"freeze_trainable_layers", "double_quantization", "quantization_method", "flash_attn"}
    | {"preprocessing_num_workers", "overwrite_cache", "max_samples", "use_unsloth"}
)
"""Keys that mark a config as this tool's."""

_NO_OPTIMIZER = "it is not predicted; write an optim such as adamw_torch instead"
_TWO_MODELS = "runs of two models or on pairs are not predicted"
REFUSED: Mapping[str, str] = {
    "use_adam_mini": _NO_OPTIMIZER,
    "use_muon": _NO_OPTIMIZER,
    "use_llama_pro": "expanded blocks are not predicted",
    "mixture_of_depths": "mixture of depths is not predicted",
    "use_kt": "KTransformers is not predicted",
    "use_mca": "Megatron is not predicted",
    "use_hyper_parallel": "HyperParallel is not predicted",
    "use_asft_loss": _TWO_MODELS,
    "ref_model": _TWO_MODELS,
    "reward_model": _TWO_MODELS,
    "fp8": "training in FP8 is not predicted",
    "additional_target": "modules trained whole beside adapters are not predicted",
    "resize_vocab": "embeddings that are resized and trained are not predicted",
    "add_tokens": "embeddings that are resized and trained are not predicted",
    "add_special_tokens": "embeddings that are resized and trained are not predicted",
}
"""Keys that make it another run than any predicted here."""

LEFT_OUT: Mapping[str, str] = {
    "eval_dataset": "evaluation is left out",
    "val_size": "evaluation is left out",
    "use_unsloth": "Unsloth's kernels are left out of the prediction",
    "use_unsloth_gc": "Unsloth's offload of checkpoints is left out of the prediction",
    "shift_attn": "shifted sparse attention is left out of the prediction",
    "upcast_lmhead_output": "logits upcast to fp32 are left out of the prediction",
    "use_dft_loss": "the DFT loss is left out of the prediction",
    "use_eaft_loss": "the EAFT loss is left out of the prediction",
    "use_v1_kernels": "kernels of its new version are left out of the prediction",
    "enable_torch_profiler": "torch's profiler is left out of the prediction",
    "module_dropout": "module_dropout is left out of the prediction",
    "moe_aux_loss_coef": "the loss that balances experts is left out of the prediction",
}
"""Keys of which a note speaks."""

_DATA = (
    "template dataset dataset_dir media_dir train_on_prompt mask_history streaming buffer_size "
    "mix_strategy interleave_probs overwrite_cache preprocessing_batch_size "
    "preprocessing_num_workers max_samples eval_num_beams ignore_pad_token_for_loss "
    "eval_on_each_dataset tool_format default_system enable_thinking preserve_thinking "
    "tokenized_path data_shared_file_system image_max_pixels image_min_pixels "
    "image_do_pan_and_scan crop_to_patches video_max_pixels video_min_pixels video_fps "
    "video_maxlen use_audio_in_video audio_sampling_rate image_resolution video_resolution "
)
_MODEL = (
    "adapter_folder cache_dir use_fast_tokenizer split_special_tokens new_special_tokens_config "
    "init_special_tokens model_revision low_cpu_mem_usage rope_scaling train_from_scratch "
    "infer_backend offload_folder use_kv_cache use_cache infer_dtype hf_hub_token ms_hub_token "
    "om_hub_token print_param_status trust_remote_code quantization_device_map export_dir "
    "export_size export_device export_quantization_bit export_quantization_dataset "
    "export_quantization_nsamples export_quantization_maxlen export_legacy_format "
    "export_hub_model_id "
)
_TUNING = (
    "create_new_adapter pissa_convert loraplus_lr_embedding badam_start_block badam_switch_mode "
    "badam_update_ratio badam_mask_mode badam_verbose asft_alpha eaft_alpha hyper_parallel_args "
    "freeze_vision_tower freeze_multi_modal_projector freeze_language_model compute_accuracy "
    "disable_shuffling early_stopping_steps plot_loss include_effective_tokens_per_second "
    "freeze_trainable_layers freeze_trainable_modules freeze_extra_modules pref_beta pref_ftx "
    "pref_bco_weight pref_loss dpo_label_smoothing kto_chosen_weight kto_rejected_weight "
    "simpo_gamma ppo_buffer_size ppo_epochs ppo_score_norm ppo_target ppo_whiten_rewards "
    "ref_model_adapters ref_model_quantization_bit reward_model_adapters "
    "reward_model_quantization_bit reward_model_type ld_alpha fp8_backend "
    "fp8_enable_fsdp_float8_all_gather gradient_checkpointing gradient_checkpointing_kwargs "
)
_REST = (
    "do_sample temperature top_p top_k num_beams max_length max_new_tokens repetition_penalty "
    "length_penalty skip_special_tokens ray_num_workers ray_init_kwargs ray_run_name "
    "ray_storage_path ray_storage_filesystem resources_per_worker placement_strategy master_addr "
    "master_port profiler_output_dir profiler_wait_steps profiler_warmup_steps "
    "profiler_active_steps profiler_repeat profiler_record_shapes profiler_profile_memory "
    "profiler_with_stack profile_modules use_swanlab swanlab_project swanlab_workspace "
    "swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_webhook_url "
    "swanlab_lark_secret vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank "
    "vllm_config sglang_maxlen sglang_mem_fraction sglang_tp_size sglang_config "
    "sglang_lora_backend kt_weight_path kt_expert_checkpoint_path kt_use_lora_experts "
    "kt_lora_expert_num kt_lora_expert_intermediate_size "
)
_IDLE = (
    "lora_rank lora_alpha lora_dropout lora_target use_dora use_rslora pissa_init pissa_iter "
    "loraplus_lr_ratio oft_rank oft_block_size oft_target galore_target galore_rank "
    "galore_update_interval galore_scale galore_proj_type galore_layerwise apollo_target "
    "apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
    "apollo_scale_type apollo_layerwise apollo_scale_front badam_mode badam_switch_interval "
)
ASIDE = frozenset(f"{_DATA}{_MODEL}{_TUNING}{_REST}{_IDLE}".split())
"""Keys of its own without effect: data, generation, export, other stages and other methods."""

LIGER = frozenset(
    {"gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4", "glm4v", "granite", "llama"}
    | {"llava", "mistral", "mixtral", "mllama", "olmo2", "paligemma", "phi3", "qwen2", "qwen2_vl"}
    | {"qwen2_5_vl", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5", "gpt_oss"}
)
"""Model types that it has Liger's kernels for; others stay as they are, with a warning."""
