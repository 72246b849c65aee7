"""How the exported script reads its JSONL file, by what the model trains for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peftadvisor.specs import TrainingSpec


@dataclass(frozen=True, slots=True)
class Reading:
    """Functions that make ``read_data(path, tokenizer)``, and what each line of the file holds.

    ``collator`` names what makes batches, by the import that brings it.
    """

    source: str
    lines: str
    collator: str = "default_data_collator"


_ENCODE = '''\
def encode(line, tokenizer):
    """Token ids and labels of one line: of a prompt only the completion is learned."""
    example = json.loads(line)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if "text" in example:
        ids = tokenizer(example["text"])["input_ids"] + end
        return ids, ids
    prompt = tokenizer(example["prompt"])["input_ids"]
    completion = tokenizer(example["completion"], add_special_tokens=False)["input_ids"] + end
    return prompt + completion, [-100] * len(prompt) + completion
'''

_PACKED = '''\
def read_data(path, tokenizer):
    """Examples one after another, cut into blocks of SEQ_LEN tokens: nothing is padded."""
    ids, labels = [], []
    with open(path, encoding="utf-8") as file:
        for line in file:
            more_ids, more_labels = encode(line, tokenizer)
            ids += more_ids
            labels += more_labels
    starts = range(0, len(ids) - SEQ_LEN + 1, SEQ_LEN)
    if not starts:
        raise SystemExit(f"{path} holds {len(ids)} tokens, fewer than one block of {SEQ_LEN}")
    return [
        {
            "input_ids": ids[start : start + SEQ_LEN],
            "attention_mask": [1] * SEQ_LEN,
            "labels": labels[start : start + SEQ_LEN],@TASK@
        }
        for start in starts
    ]
'''

_PADDED = '''\
def read_data(path, tokenizer):
    """Examples cut or padded to SEQ_LEN tokens, the shape that was estimated."""
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    examples = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            ids, labels = (part[:SEQ_LEN] for part in encode(line, tokenizer))
            missing = SEQ_LEN - len(ids)
            examples.append(
                {
                    "input_ids": ids + [padding] * missing,
                    "attention_mask": [1] * len(ids) + [0] * missing,
                    "labels": labels + [-100] * missing,@TASK@
                }
            )
    return examples
'''

_SEQ2SEQ = '''\
def read_data(path, tokenizer):
    """Pairs cut or padded to SEQ_LEN and TARGET_LEN tokens, the shape that was estimated."""
    examples = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            example = json.loads(line)
            fixed = {"truncation": True, "padding": "max_length"}
            source = tokenizer(example["prompt"], max_length=SEQ_LEN, **fixed)
            target = tokenizer(text_target=example["completion"], max_length=TARGET_LEN, **fixed)
            seen = zip(target["input_ids"], target["attention_mask"])
            examples.append(
                {
                    "input_ids": source["input_ids"],
                    "attention_mask": source["attention_mask"],
                    "labels": [token if is_real else -100 for token, is_real in seen],@TASK@
                }
            )
    return examples
'''

_CLASSES = '''\
def read_data(path, tokenizer):
    """Texts cut or padded to SEQ_LEN tokens, the shape that was estimated, and their classes."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    examples = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            example = json.loads(line)
            fixed = {"truncation": True, "padding": "max_length", "max_length": SEQ_LEN}
            text = tokenizer(example["text"], **fixed)
            examples.append(
                {
                    "input_ids": text["input_ids"],
                    "attention_mask": text["attention_mask"],
                    "labels": example["label"],@TASK@
                }
            )
    return examples
'''

_MASKED = '''\
def read_data(path, tokenizer):
    """Texts one after another, cut into blocks of SEQ_LEN tokens; the collator masks some."""
    ids = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            ids += tokenizer(json.loads(line)["text"])["input_ids"]
    starts = range(0, len(ids) - SEQ_LEN + 1, SEQ_LEN)
    if not starts:
        raise SystemExit(f"{path} holds {len(ids)} tokens, fewer than one block of {SEQ_LEN}")
    return [{"input_ids": ids[start : start + SEQ_LEN]} for start in starts]
'''

_TEXT_LINES = '{"text": "..."}, or {"prompt": "...", "completion": "..."}'
_CAUSAL = (
    Reading(f"{_ENCODE}\n\n{_PACKED}", _TEXT_LINES),
    Reading(f"{_ENCODE}\n\n{_PADDED}", _TEXT_LINES),
)
_OTHERS: Mapping[str, Reading] = {
    "seq2seq": Reading(_SEQ2SEQ, '{"prompt": "...", "completion": "..."}'),
    "classifier": Reading(_CLASSES, '{"text": "...", "label": 0}'),
    "masked-lm": Reading(_MASKED, '{"text": "..."}', "DataCollatorForLanguageModeling(tokenizer)"),
}
CAUSAL = frozenset({"causal-lm", "multimodal-lm"})
PADS_ALWAYS = frozenset({"seq2seq", "classifier"})
"""Tasks whose examples are not strung together."""
AUTO_CLASSES: Mapping[str, str] = {
    "causal-lm": "AutoModelForCausalLM",
    "multimodal-lm": "AutoModelForImageTextToText",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "classifier": "AutoModelForSequenceClassification",
    "masked-lm": "AutoModelForMaskedLM",
}
"""The class that loads a model for each task that a script can be written for."""


def reading(task: str, training: TrainingSpec, with_task: bool) -> Reading:
    """The functions for a task; ``with_task`` adds a column that says of which task it is."""
    chosen = _CAUSAL[training.padded] if task in CAUSAL else _OTHERS[task]
    column = ' "task_ids": 0,' if with_task else ""
    return Reading(chosen.source.replace("@TASK@", column), chosen.lines, chosen.collator)
