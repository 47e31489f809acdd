"""A script that turns the training data into the rows that a tool reads.

The tools agree on no columns, and most of them truncate what is too long. The script renders the
pairs as a trial does and leaves out what a trial leaves out. It needs `datasets` and
`transformers`, which all the tools bring, and not this package.
"""

from __future__ import annotations

from optuna_llmbo.lora.columns import KNOWN_COLUMNS
from optuna_llmbo.lora.export.facts import check_data
from optuna_llmbo.lora.export.facts import Facts


# By layout: the body of `row`, which returns one row of the written file.
_ROWS = {
    # TRL and Unsloth apply the chat template and add the ends themselves
    "conversation": """\
    if not tokenizer.chat_template:
        return {"prompt": pair[0] + "\\n", "completion": pair[1]}
    turns = [
        {"role": "user", "content": pair[0]},
        {"role": "assistant", "content": pair[1]},
    ]
    return {"prompt": turns[:1], "completion": turns[1:]}
""",
    # LLaMA-Factory with an empty template
    "rendered": """\
    return {"prompt": prompt, "response": response}
""",
    # Axolotl's input_output, which adds nothing either
    "segments": """\
    return {
        "segments": [
            {"label": False, "text": prompt},
            {"label": True, "text": response},
        ]
    }
""",
}

_SCRIPT = '''\
"""Makes data/*.jsonl for {tool}: the pairs as the trials of optuna-llmbo read them.

Examples of more than MAX_LENGTH tokens are left out, none is truncated.
"""

import json
from pathlib import Path

import datasets
import transformers

MODEL = {model!r}
SOURCES = {sources!r}  # a JSON, JSONL, CSV or Parquet file, or a hub id
PROMPT_COLUMN = {prompt_column!r}  # None: one of KNOWN_COLUMNS
RESPONSE_COLUMN = {response_column!r}
MAX_LENGTH = {max_length}

KNOWN_COLUMNS = {known_columns!r}
BUILDERS = {{".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}}


def pairs(source):
    builder = BUILDERS.get(Path(source).suffix.lower())
    where = (builder, source) if builder else (source, None)
    rows = datasets.load_dataset(where[0], data_files=where[1], split="train")
    known = next((c for c in KNOWN_COLUMNS if set(c) <= set(rows.column_names)), (None, None))
    columns = (PROMPT_COLUMN or known[0], RESPONSE_COLUMN or known[1])
    if None in columns:
        raise SystemExit(f"set PROMPT_COLUMN and RESPONSE_COLUMN: there are {{rows.column_names}}")
    return zip(rows[columns[0]], rows[columns[1]])


def rendered(pair, tokenizer):
    """The text up to the answer, and the answer with its end."""
    prompt, response = pair[0] + "\\n", pair[1]
    if tokenizer.chat_template:
        turns = [
            {{"role": "user", "content": pair[0]}},
            {{"role": "assistant", "content": pair[1]}},
        ]
        prompt = tokenizer.apply_chat_template(
            turns[:1], tokenize=False, add_generation_prompt=True
        )
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        if whole.startswith(prompt):
            response = whole[len(prompt) :].rstrip()
    elif tokenizer.bos_token_id in tokenizer("").input_ids:
        prompt = tokenizer.bos_token + prompt
    ids = tokenizer(response, add_special_tokens=False).input_ids
    is_ended = bool(ids) and ids[-1] in tokenizer.all_special_ids
    return prompt, response if is_ended else response + tokenizer.eos_token


def row(pair, prompt, response, tokenizer):
{row}

tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
Path("data").mkdir(exist_ok=True)
for name, source in SOURCES.items():
    kept, too_long = [], 0
    for pair in pairs(source):
        texts = rendered(pair, tokenizer)
        lengths = [len(tokenizer(t, add_special_tokens=False).input_ids) for t in texts]
        if sum(lengths) > MAX_LENGTH:
            too_long += 1
        else:
            kept.append(row(pair, *texts, tokenizer))
    with open(f"data/{{name}}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\\n" for line in kept)
    print(f"data/{{name}}.jsonl: {{len(kept)}} examples; {{too_long}} are too long and left out")
'''


def dataset_script(facts: Facts, tool: str, layout: str) -> str:
    """The script's text.

    Args:
        facts: where the data are, and what is too long.
        tool: its name.
        layout: "conversation", "rendered" or "segments".

    Raises:
        InputError: if the data exist only in this package.
    """
    check_data(facts)
    sources = {"train": facts.train}
    if facts.validation is not None:
        sources["validation"] = facts.validation
    return _SCRIPT.format(
        tool=tool,
        model=facts.model,
        sources=sources,
        prompt_column=facts.prompt_column,
        response_column=facts.response_column,
        max_length=facts.max_length,
        known_columns=KNOWN_COLUMNS,
        row=_ROWS[layout],
    )
