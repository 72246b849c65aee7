"""A Python script: transformers' Trainer, with PEFT or with parameters chosen by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports.header import comment, header
from peftadvisor.integrations.exports.modules import attachment
from peftadvisor.integrations.exports.peft_data import (
    AUTO_CLASSES,
    PADS_ALWAYS,
    reading,
)
from peftadvisor.integrations.exports.peft_methods import (
    CALLBACKS,
    METHODS,
    SELECTIVE,
    TASK_IDS,
    own_optimizer,
    require_inputs,
)
from peftadvisor.integrations.exports.peft_model import load_model
from peftadvisor.integrations.exports.peft_trainer import arguments
from peftadvisor.integrations.exports.python_source import Code, assigned, call, indented, literal
from peftadvisor.integrations.exports.schedule import duration, optimizer_steps
from peftadvisor.integrations.exports.value import Difference, Export, Format, loop_difference

if TYPE_CHECKING:
    from peftadvisor.simulator.attachment import Attachment

LIBRARIES = {
    "5": "transformers 5 and peft 0.21",
    "4": "transformers 4.46 or later, below 5, and peft",
    "4.45": "transformers up to 4.45 and peft",
}
NAME = "train.py"


def write(export: Export) -> str:
    """The script, self-contained but for its data.

    Raises:
        UsageError: the model has another task than text, or the method lacks what it starts from.
    """
    require_inputs(export)
    _require_scalable(export)
    found = attachment(export)
    if found.task not in AUTO_CLASSES:
        raise UsageError(
            f"the peft export reads texts, and {export.run.model.id} trains for {found.task}; "
            "write its data loading by hand"
        )
    read = reading(found.task, export.training, export.run.method.name in TASK_IDS)
    model, model_imports = load_model(export, found)
    main, main_imports = _main(export, found, read.collator)
    callback = CALLBACKS.get(export.run.method.name, ())
    sections = [
        _imports([*model_imports, *main_imports, *_callback_imports(callback)]),
        _constants(export, found),
        "\n".join(callback),
        model,
        read.source.rstrip(),
        main,
        'if __name__ == "__main__":\n    main()',
    ]
    head = header(
        export,
        LIBRARIES[export.training.transformers],
        _start(export, read.lines),
        differences(export, found.task),
    )
    body = "\n\n\n".join(section for section in sections if section)
    return f"{head}\n{body}\n"


def _require_scalable(export: Export) -> None:
    """Refuse what the gradient scaler of fp16 would stop at: trained weights in fp16."""
    t, name = export.training, export.run.method.name
    whole = name in SELECTIVE or name in ("galore", "apollo", "ln-tuning")
    if t.dtype == "fp16" and t.amp and whole:
        raise UsageError(
            f"the Trainer cannot scale the gradients of fp16 weights, which {name} trains; "
            "estimate it with --dtype bf16, or --dtype fp32 --amp"
        )


def differences(export: Export, task: str) -> list[Difference]:
    """How the Trainer's run differs from the estimated one."""
    t, name = export.training, export.run.method.name
    found = loop_difference(t, "the Trainer")
    if task in PADS_ALWAYS and not t.padded:
        text = "examples are padded to full length, which brings a mask; the estimate has none"
        found.append(Difference(text, (("padded", True),)))
    if task == "masked-lm" and t.padded:
        text = "texts are strung together and not padded; the estimate has padding"
        found.append(Difference(text, (("padded", False),)))
    if name == "loftq" and export.settings["iterations"] > 1:
        found.append(Difference("PEFT starts LoftQ on a 4-bit base by one iteration"))
    if name == "trainable-tokens" and export.settings["token_indices"] is None:
        found.append(Difference("the first 32 tokens stand as an example for those to be trained"))
    if name == "adalora" and optimizer_steps(export) is None:
        found.append(Difference("total_step is to be set to the optimizer steps of the run"))
    if export.run.gpus > 1 and export.run.sharding.startswith("zero"):
        found.append(Difference("DeepSpeed keeps fp32 copies of trained 16-bit weights besides"))
    if export.run.gpus > 1 and export.run.sharding == "fsdp" and t.transformers == "5":
        found.append(
            Difference("the estimate follows torch's first FSDP, transformers 5 its second")
        )
    return found


def _start(export: Export, lines: str) -> list[str]:
    t, gpus = export.training, export.run.gpus
    launcher = "python" if gpus == 1 else f"torchrun --nproc-per-node {gpus}"
    needed = ["accelerate"]
    needed += ["bitsandbytes"] if t.quantization in ("nf4", "nf4-dq", "int8") else []
    needed += ["bitsandbytes"] if "8bit" in t.optimizer and "bitsandbytes" not in needed else []
    needed += ["gptqmodel"] if t.quantization == "gptq" else []
    needed += ["liger-kernel"] if t.loss != "torch" else []
    needed += ["flash-attn"] if t.attention == "flash_attention_2" else []
    needed += ["deepspeed"] if gpus > 1 and export.run.sharding.startswith("zero") else []
    needed += {"galore": ["galore-torch"], "apollo": ["apollo-torch"]}.get(
        export.run.method.name, []
    )
    return [
        f"{launcher} {NAME} --data data.jsonl     (besides torch it needs {', '.join(needed)})",
        f"each line of data.jsonl is {lines}",
    ]


def _imports(statements: Iterable[str]) -> str:
    """Import lines, the standard library first; names of one module on one line."""
    plain = {line for line in statements if line.startswith("import ")}
    named: dict[str, set[str]] = {}
    for line in statements:
        if line.startswith("from "):
            module, _, names = line.removeprefix("from ").partition(" import ")
            named.setdefault(module, set()).update(names.split(", "))
    own = ["import argparse", "import json"]
    own += ["from fnmatch import fnmatch"] if "fnmatch" in named else []
    lines = sorted(plain)
    for module in sorted(set(named) - {"fnmatch"}):
        lines += _from(module, sorted(named[module], key=lambda name: (name.islower(), name)))
    return "\n".join([*own, "", *lines])


def _from(module: str, names: list[str]) -> list[str]:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= 88:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]


def _callback_imports(callback: tuple[str, ...]) -> list[str]:
    return ["from transformers import TrainerCallback"] if callback else []


def _constants(export: Export, found: Attachment) -> str:
    t = export.training
    lines = [f"MODEL = {literal(export.run.model.id)}", f"SEQ_LEN = {t.seq_len}"]
    if found.task == "seq2seq":
        lines.append(f"TARGET_LEN = {t.target_len}")
    if export.run.method.name in SELECTIVE and found.trained != ("*",):
        lines += assigned("TRAINED", _listed(found.trained))
    return "\n".join(lines)


def _listed(texts: Iterable[str]) -> list[str]:
    return ["[", *(f"    {literal(text)}," for text in texts), "]"]


def _main(export: Export, found: Attachment, collator: str) -> tuple[str, list[str]]:
    optimizer, optimizer_imports = own_optimizer(export)
    named: dict[str, Any] = {
        "model": Code("model"),
        "args": Code("args"),
        "train_dataset": Code("read_data(given.data, tokenizer)"),
        "data_collator": Code(collator),
    }
    if optimizer:
        named["optimizers"] = Code("(optimizer, None)")
    if export.run.method.name in CALLBACKS:
        named["callbacks"] = Code("[AllocateRanks()]")
    lines = [
        *_options(export),
        "",
        "tokenizer = AutoTokenizer.from_pretrained(given.model)",
        *assigned("args", call("TrainingArguments", arguments(export, found))),
        "model = load_model(given.model)",
        *_padding_token(found),
        *optimizer,
        *assigned("trainer", call("Trainer", named)),
        "trainer.train()",
        "trainer.save_model()",
        "tokenizer.save_pretrained(given.output)",
    ]
    imports = [
        "from transformers import AutoTokenizer, Trainer, TrainingArguments",
        f"from transformers import {collator.partition('(')[0]}",
        *optimizer_imports,
    ]
    return "\n".join(["def main():", *indented(lines)]), imports


def _padding_token(found: Attachment) -> list[str]:
    """A classifier built on a decoder reads the last token that is no padding."""
    if found.task != "classifier":
        return []
    padding = "tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id"
    return [f"padding = {padding}", "model.config.pad_token_id = padding"]


def _options(export: Export) -> list[str]:
    quantized = export.training.quantization == "gptq"
    model: Mapping[str, Any] = (
        {
            "required": True,
            "help": f"a GPTQ checkpoint of {comment(export.run.model.id)}".replace("%", "%%"),
        }
        if quantized
        else {"default": Code("MODEL"), "help": "a Hub id or a folder"}
    )
    steps = duration(export).get("steps", -1)
    return [
        "parser = argparse.ArgumentParser()",
        *call("parser.add_argument", model, ["--model"]),
        'parser.add_argument("--data", required=True, help="a JSONL file")',
        'parser.add_argument("--output", default="output", help="where the result is saved")',
        *call(
            "parser.add_argument",
            {"type": Code("int"), "default": steps, "help": "in place of whole epochs"},
            ["--max-steps"],
        ),
        "given = parser.parse_args()",
    ]


FORMAT = Format(name="peft", write=write, methods=METHODS, offers={}, text_only=False)
