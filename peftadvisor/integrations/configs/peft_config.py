"""PEFT's ``adapter_config.json``: which method it is, with which settings. Read in PEFT 0.21."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.checkpoints import targets
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.method import lora_of, method_of
from peftadvisor.integrations.configs.peft_kinds import KINDS, Kind, integer
from peftadvisor.integrations.configs.reader import Reader, amount, names, shown, switch
from peftadvisor.integrations.configs.value import ConfigFile, Traced
from peftadvisor.specs import MethodSpec, Quantization

PEFT = "peft 0.21"
NAME = "adapter_config.json"
_REFUSED: Mapping[str, str] = {
    "rank_pattern": "ranks that differ by layer are not predicted",
    "alpha_pattern": "scales that differ by layer are not predicted",
    "layers_to_transform": "adapters in some layers alone are not predicted",
    "layers_pattern": "adapters in some layers alone are not predicted",
    "layer_replication": "repeated layers are not predicted",
    "target_parameters": "adapters of parameters are not predicted; name modules",
    "trainable_token_indices": "trained tokens beside adapters are not predicted",
    "megatron_config": "Megatron's layers are not predicted",
    "use_qalora": "QALoRA is not predicted",
    "use_bdlora": "BD-LoRA is not predicted",
    "alora_invocation_tokens": "activated LoRA is not predicted",
    "arrow_config": "Arrow is not predicted",
    "kasa_config": "KaSA is not predicted",
    "monteclora_config": "MonteCLoRA is not predicted",
    "velora_config": "VeLoRA is not predicted",
    "n_frequency_pattern": "counts that differ by layer are not predicted",
    "block_size_pattern": "sizes that differ by layer are not predicted",
    "lambda_pattern": "strengths that differ by layer are not predicted",
    "target_svd_config": "ranks that differ by layer are not predicted",
}
"""Fields that change sizes in ways no method here has."""
_HEADS = frozenset({"classifier", "score", "classification_head", "qa_outputs", "pooler"})
WITHOUT_EFFECT = frozenset(
    {"peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision"}
    | {"inference_mode", "peft_version", "fan_in_fan_out", "megatron_core", "qalora_group_size"}
    | {"init_lora_weights", "init_ia3_weights", "init_weights", "eva_config", "corda_config"}
    | {"lora_ga_config", "loftq_config", "runtime_config", "ensure_weight_tying", "eps", "alpha"}
    | {"projection_prng_key", "projection_seed", "proj_seed", "random_seed", "random_loc_seed"}
    | {"generator_seed", "save_projection", "save_indices", "save_only_topk_weights"}
    | {"d_initial", "init_scale", "init_v_bound", "init_vector_bank_bound", "init_logits_std"}
    | {"init_theta_d_bound", "regularization_alpha", "progressbar", "mask_type", "poly_type"}
    | {"r", "tinit", "tfinal", "beta1", "beta2", "orth_reg_weight", "rank_dropout"}
    | {"rank_dropout_scale", "use_effective_conv2d", "wavelet_family", "scaling", "act_fn"}
    | {"randlora_alpha", "psoft_alpha", "psoft_svd", "psoft_svd_lowrank_niter", "ab_svd_init"}
    | {"cayley_neumann_eps", "num_cayley_neumann_terms", "use_cayley_neumann", "token_dim"}
    | {"num_attention_heads", "num_layers", "tokenizer_name_or_path", "tokenizer_kwargs"}
    | {"prompt_tuning_init", "prompt_tuning_init_text", "prompt_tuning_init_task"}
    | {"prompt_tuning_init_state_dict_path", "encoder_hidden_size", "encoder_num_layers"}
    | {
        "encoder_dropout",
        "num_transformer_submodules",
        "num_virtual_tokens",
        "cpt_mask",
        "opt_weighted_loss_type",
    }
    | {"opt_loss_decay_factor", "asa_target_subspaces", "init_warmup", "final_warmup"}
    | {"mask_interval", "asa_importance_beta", "asa_uncertainty_beta", "asa_schedule_exponent"}
    | {"svd_threshold", "sample_at_inference", "hidden_size", "adapters", "enable_softmax"}
    | {"enable_softmax_topk", "softmax_temperature", "top_k_lora", "scaling_pass_value"}
    | {"global_scaling_weight", "xlora_size", "xlora_dropout_p"}
)
"""Fields of 0.21 that decide neither sizes nor kernels of training, or are read elsewhere."""
_PISSA = "pissa_niter_"
_STARTS = {"pissa": "pissa", "olora": "olora"}


def adapter_beside(folder: Path) -> ConfigFile | None:
    """The adapter's config in a folder.

    Raises:
        UsageError: there is a file of that name that cannot be read.
    """
    path = folder / NAME
    found = read_config_file(path) if path.is_file() else None
    return found if found is not None and "peft_type" in found.values else None


def beside(reader: Reader) -> Iterator[Traced]:
    """The traces of a file that lies beside the one that was passed: it is named in the source."""
    for traced in reader.traced:
        said = "" if traced.key is None else f"{Path(reader.file).name}, "
        yield replace(traced, key=None, source=f"{said}{traced.source}")


def method_in(
    reader: Reader, model: str, quantization: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    """The method of an adapter's config, and notes on what of it is left out.

    Raises:
        UsageError: a type or a setting that none of our methods has.
    """
    kind = _kind(reader)
    _refuse(reader, kind)
    settings = _settings(reader, kind, model)
    notes = _notes(reader, kind)
    special = _SPECIAL.get(kind.method)
    found = special(reader, settings, quantization) if special else None
    spec, more = found or (method_of(kind.method, settings), ())
    reader.note("method", spec.name, "peft_type", f"peft_type: {shown(reader.peek('peft_type'))}")
    return spec, (*notes, *more)


def quantized_by(reader: Reader) -> Quantization:
    """The quantization that an adapter's start implies: LoftQ's alone."""
    return "nf4" if reader.peek("init_lora_weights") == "loftq" else "none"


def unknown(reader: Reader) -> tuple[str, ...]:
    """Fields that nobody here knows; those that hold nothing count as left out."""
    return tuple(key for key in reader.unknown(WITHOUT_EFFECT) if reader.values[key])


def _kind(reader: Reader) -> Kind:
    name = str(reader.peek("peft_type", "")).removeprefix("PeftType.").upper()
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise UsageError(
            f"{reader.file}: 'peft_type' is {shown(reader.peek('peft_type'))}; known here: {known}"
        )
    return KINDS[name]


def _refuse(reader: Reader, kind: Kind) -> None:
    for field, reason in _REFUSED.items():
        if reader.peek(field):
            raise UsageError(f"{reader.file}: '{field}' is {shown(reader.peek(field))}; {reason}")
    saved = reader.peek("modules_to_save") or ["classifier"]
    whole = [n for n in reader.understood("modules_to_save", saved, names) if n not in _HEADS]
    if whole:
        raise UsageError(
            f"{reader.file}: 'modules_to_save' names {shown(', '.join(map(str, whole)))}; modules "
            "trained whole beside adapters are not predicted"
        )
    for field, values in kind.held.items():
        found = reader.peek(field)
        if found is not None and found not in values:
            raise UsageError(
                f"{reader.file}: '{field}' is {shown(found)}; only {shown(values[0])} is predicted"
            )


def _settings(reader: Reader, kind: Kind, model: str) -> dict[str, Any]:
    settings = {}
    for field, (name, default, read) in kind.fields.items():
        if default is ... and not reader.has(field):
            raise UsageError(f"{reader.file} has no '{field}', which {kind.method} needs")
        settings[name] = reader.take(name, field, read, default)
    if kind.targets:
        settings["target_modules"] = target_modules(reader, model if kind.usual else "")
    return settings


def target_modules(reader: Reader, model: str, key: str = "target_modules") -> Any:
    """What is adapted: a list, a pattern, or None for query and value or the method's own.

    Raises:
        UsageError: neither a list of names nor a text.
    """
    found = reader.peek(key)
    value = targets(model, None if found is None else reader.understood(key, found, _modules))
    source = f"default of {reader.defaults_of}" if found is None else f"{key}: {shown(found)}"
    reader.note("target_modules", value, None if found is None else key, source)
    return value


def _modules(value: Any) -> Any:
    """Names as a list; one text is a pattern or ``all-linear``."""
    return value.strip() if isinstance(value, str) and value.strip() else names(value)


def _notes(reader: Reader, kind: Kind) -> tuple[str, ...]:
    found = []
    if str(reader.peek("bias", "none")) != "none":
        found.append("biases that are trained besides are left out of the prediction")
    if reader.peek("exclude_modules"):
        found.append(f"exclude_modules ({shown(reader.peek('exclude_modules'))}) is left out")
    dropout = kind.dropout
    if dropout and reader.understood(dropout, reader.peek(dropout, 0), amount):
        found.append(f"{dropout} is left out of the prediction")
    return tuple(found)


def _lora(
    reader: Reader, settings: dict[str, Any], quantization: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    """LoRA by its switches and its start."""
    start = str(reader.peek("init_lora_weights", True))
    switched: dict[str, dict[str, Any]] = {}
    if start == "loftq":
        config = reader.peek("loftq_config") or {}
        iterations = integer(config.get("loftq_iter", 1)) if isinstance(config, Mapping) else 1
        return method_of("loftq", {**settings, "iterations": iterations}), ()
    for name, key in (("dora", "use_dora"), ("rslora", "use_rslora")):
        if reader.take(key, key, switch, False):
            switched[name] = {}
    if start in _STARTS:
        switched[_STARTS[start]] = {"init": "pissa"} if start == "pissa" else {}
    elif start.startswith(_PISSA):
        switched["pissa"] = {"init": pissa_start(start)}
        reader.note("init", switched["pissa"]["init"], "init_lora_weights", start)
    return lora_of(switched, settings, quantization)


def pissa_start(start: str) -> str:
    """One of the two fast starts of PiSSA, whose steps are over before training begins."""
    return start if start == f"{_PISSA}4" else f"{_PISSA}16"


def _experts(
    reader: Reader, settings: dict[str, Any], _: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    """X-LoRA: as many experts as it names; what they are like stands in their own folders."""
    adapters = reader.peek("adapters") or {}
    if not isinstance(adapters, Mapping) or not adapters:
        raise UsageError(f"{reader.file} has no 'adapters', which x-lora needs")
    spec = method_of("x-lora", {**settings, "experts": len(adapters)})
    return spec, ("the experts' rank and layers are taken to be rank 8 on query and value",)


def _context(
    _reader: Reader, settings: dict[str, Any], _: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    """CPT: its context is as long as its tokens are many."""
    return method_of("cpt", {**settings, "virtual_tokens": len(settings["token_ids"])}), ()


def _ia3(
    reader: Reader, settings: dict[str, Any], _: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    forward = reader.peek("feedforward_modules")
    if forward is not None:
        forward = reader.understood("feedforward_modules", forward, _modules)
    reader.note("feedforward_modules", forward, "feedforward_modules", shown(forward))
    return method_of("ia3", {**settings, "feedforward_modules": forward}), ()


_Special = Callable[[Reader, dict[str, Any], Quantization], tuple[MethodSpec, tuple[str, ...]]]
_SPECIAL: Mapping[str, _Special] = {"lora": _lora, "x-lora": _experts, "ia3": _ia3, "cpt": _context}
