"""Keys of transformers' ``TrainingArguments`` (5.23, and earlier names) without effect here.

They change neither memory nor time of a training step, nor what the rules on quality read:
logging, saving, the Hub, seeds, data loading, the optimizer's coefficients and the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.integrations.configs.reader import Reader

_RUN = "output_dir overwrite_output_dir do_train do_predict resume_from_checkpoint seed data_seed "
_LOGGING = (
    "logging_dir logging_strategy logging_steps logging_first_step log_on_each_node log_level "
    "log_level_replica logging_nan_inf_filter disable_tqdm report_to run_name project debug "
    "trackio_space_id trackio_bucket_id trackio_static_space_id include_num_input_tokens_seen "
    "include_tokens_per_second skip_memory_metrics past_index "
)
_SAVING = (
    "save_strategy save_steps save_total_limit save_safetensors save_on_each_node save_only_model "
    "enable_jit_checkpoint load_best_model_at_end metric_for_best_model greater_is_better "
    "ignore_data_skip restore_callback_states_from_checkpoint "
)
_HUB = (
    "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push "
    "hub_revision push_to_hub_model_id push_to_hub_organization push_to_hub_token "
)
_EVALUATION = (
    "per_device_eval_batch_size per_gpu_eval_batch_size eval_steps eval_delay eval_on_start "
    "eval_accumulation_steps eval_do_concat_batches eval_use_gather_object batch_eval_metrics "
    "prediction_loss_only include_for_metrics include_inputs_for_metrics bf16_full_eval "
    "fp16_full_eval predict_with_generate generation_max_length generation_num_beams "
    "generation_config sortish_sampler jit_mode_eval "
)
_DATA = (
    "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_in_order "
    "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context "
    "remove_unused_columns label_names train_sampling_strategy length_column_name dispatch_batches "
    "split_batches "
)
_LEARNING = (
    "lr_scheduler_type lr_scheduler_kwargs warmup_steps warmup_ratio weight_decay adam_beta1 "
    "adam_beta2 adam_epsilon average_tokens_across_devices neftune_noise_alpha use_cache tf32 "
    "full_determinism liger_kernel_config optim_args optim_target_modules "
)
_LAUNCH = (
    "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph "
    "ddp_backend ddp_timeout local_rank local-rank accelerator_config use_legacy_prediction_loop "
    "mp_parameters tpu_num_cores tpu_metrics_debug half_precision_backend fp16_backend "
    "fp16_opt_level deepspeed_plugin distributed_state _n_gpu n_gpu __cached__setup_devices "
    "fsdp_config torch_empty_cache_steps no_cuda use_cpu use_ipex use_mps_device "
    "torch_compile_backend torch_compile_mode torchdynamo ray_scope transformers_version "
)
ARGUMENTS = frozenset(
    f"{_RUN}{_LOGGING}{_SAVING}{_HUB}{_EVALUATION}{_DATA}{_LEARNING}{_LAUNCH}".split()
)
"""Every such key; beside them stand those that the readers ask for."""

NOTED: Mapping[str, str] = {
    "eval_strategy": "evaluation is left out",
    "evaluation_strategy": "evaluation is left out",
    "do_eval": "evaluation is left out",
    "torch_compile": "torch.compile is left out of the prediction",
    "auto_find_batch_size": "auto_find_batch_size halves the batch where memory runs out",
    "label_smoothing_factor": "label smoothing is left out of the prediction",
    "group_by_length": "batches of like length are left out of the prediction",
    "parallelism_config": "tensor and context parallelism are left out of the prediction",
}
"""Keys that a note speaks of wherever they are switched on."""
_OFF = (None, False, 0, "no", "none", "false", "")


def notes(reader: Reader, more: Mapping[str, str]) -> tuple[str, ...]:
    """What of a config is left out: one clause for each key that is switched on."""
    table = {**NOTED, **more}
    said = {text: None for key, text in table.items() if _is_on(reader.peek(key))}
    return (*said, *_options(reader))


def _is_on(value: Any) -> bool:
    return (value.lower() if isinstance(value, str) else value) not in _OFF and value != {}


def _options(reader: Reader) -> tuple[str, ...]:
    """Options of checkpointing beyond the two that are predicted."""
    for key in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        found = reader.peek(key)
        given = found if isinstance(found, Mapping) else {}
        other = [name for name in given if name not in ("use_reentrant", "preserve_rng_state")]
        if any(given[name] for name in other):
            return (f"{', '.join(other)} of {key} is left out of the prediction",)
    return ()
