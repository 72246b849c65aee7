"""A tokenizer whose counts can be told by eye: one token per word, a start token in front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "a", "b", "c"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|> {{ message['content'] }} {{ eos_token }}"
    "{% endfor %}"
)


def save_tokenizer(folder: Path, **config: Any) -> Path:
    """``tokenizer.json`` and ``tokenizer_config.json``, as ``save_pretrained`` leaves them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(WORDS[1:6])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    # Limits that were saved with it, as some are: counts must not heed them.
    made.enable_truncation(4)
    made.enable_padding(length=4, pad_id=0, pad_token="<unk>")
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, **config}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
