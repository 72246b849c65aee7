"""Liger's kernels: the losses that are estimated, and the models that it patches.

Read in liger-kernel 0.8.5 (``liger_kernel/transformers/monkey_patch.py``), which leaves a model of
another type as it is without a word.
"""

from __future__ import annotations

from collections.abc import Mapping

LOSSES: Mapping[str, dict[str, bool]] = {
    "fused": {"cross_entropy": True, "fused_linear_cross_entropy": False},
    "fused-linear": {"cross_entropy": False, "fused_linear_cross_entropy": True},
}
OTHERS_OFF = dict.fromkeys(("rope", "rms_norm", "layer_norm", "swiglu", "geglu"), False)
"""Kernels that were not estimated."""
MODEL_TYPES = frozenset(
    {
        *("deepseek_v2", "deepseek_v3", "deepseek_v4", "exaone4", "falcon_h1", "gemma", "gemma2"),
        *("gemma3", "gemma3_text", "gemma4", "gemma4_text", "glm4", "glm4v", "glm4v_moe"),
        *("gpt_oss", "granite", "hunyuan_v1_dense", "hunyuan_v1_moe", "internvl", "llama"),
        *("llama4", "llama4_text", "llava", "ministral", "mistral", "mixtral", "mllama"),
        *("nemotron", "olmo2", "olmo3", "paligemma", "phi3", "qwen2", "qwen2_5_vl", "qwen2_vl"),
        *("qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe", "qwen3_next", "qwen3_vl"),
        *("qwen3_vl_moe", "smollm3", "smolvlm"),
    }
)
"""Model types whose loss it replaces."""
