"""A script that turns the training data into the rows that a tool reads.

The tools agree on no columns, and most of them truncate what is too long. The script renders the
pairs as a trial does and leaves out what a trial leaves out. It needs `datasets` and
`transformers`, which all the tools bring, and not this package.
"""

from __future__ import annotations

from string import Template

from optuna_llmbo.lora import chat_template
from optuna_llmbo.lora import data
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

_SCRIPT = Template('''\
"""Makes data/*.jsonl for $tool: the pairs as the trials of optuna-llmbo read them.

Examples of more than MAX_LENGTH tokens are left out, none is truncated.
"""

import csv
import gzip
import io
import json
import os
from pathlib import Path
import sys

import datasets
import numpy
from pyarrow import parquet
import transformers

MODEL = $model
# each a JSON, JSONL, CSV or Parquet file, a folder of such files, a data set saved on disk, or a
# hub id (NAME, NAME@SPLIT, NAME:CONFIGURATION@SPLIT)
SOURCES = $sources
# examples to split off the first source, or which fraction of them; "test" is not written
HELD_OUT = $held_out
PROMPT_COLUMN = $prompt_column  # None: one of KNOWN_COLUMNS
RESPONSE_COLUMN = $response_column
IGNORE_COLUMNS = $ignore_columns
MAX_LENGTH = $max_length
SEED = $seed  # of what is held out

KNOWN_COLUMNS = $known_columns
STREAMS = $streams
NO_DATA = (".md", "_success", "readme", "license", "license.txt")
# before a chat template that writes the current date: it writes the one that trials were told
DAY = $day


def rows_of_file(path):
    content, name = path.read_bytes(), path.name.lower()
    if name.endswith(".gz"):
        content, name = gzip.decompress(content), name[:-3]
    if name.endswith(".parquet"):
        return parquet.read_table(io.BytesIO(content)).to_pylist()
    text = content.decode("utf-8-sig")
    if name.endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\\n") if line.strip()]


def rows_of(source):
    place, _, split = source.rpartition("@")
    path = Path(source).expanduser()
    if path.exists() or not place:
        place, split = source, "train"
    if path.is_file():
        return rows_of_file(path)
    folder = Path(place).expanduser()
    if (folder / "dataset_dict.json").is_file():
        return list(datasets.load_from_disk(str(folder))[split])
    if (folder / "state.json").is_file():
        return list(datasets.load_from_disk(str(folder)))
    if folder.is_dir():
        names = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
        data = sorted(name for name in names if not name.lower().endswith(NO_DATA))
        return [row for name in data for row in rows_of_file(folder / name)]
    name, _, configuration = place.partition(":")
    return list(datasets.load_dataset(name, configuration or None, split=split))


def pairs(source):
    rows = rows_of(source)
    names = dict.fromkeys(name for row in rows for name in row)
    left = set(names) - set(IGNORE_COLUMNS)
    prompt, response = PROMPT_COLUMN, RESPONSE_COLUMN
    for known in sorted(KNOWN_COLUMNS, key=lambda pair: not set(pair) <= set(names)):
        if (prompt or known[0] in left) and (response or known[1] in left):
            prompt, response = prompt or known[0], response or known[1]
    if prompt is None or response is None:
        raise SystemExit(f"set PROMPT_COLUMN and RESPONSE_COLUMN: there are {list(names)}")
    has_input = prompt == "instruction" and "input" in left - {response}
    for row in rows:
        more = row.get("input") if has_input else None
        is_more = isinstance(more, str) and more.strip()
        yield row[prompt] + "\\n\\n" + more if is_more else row[prompt], row[response]


def rendered(pair, tokenizer, template):
    """The text up to the answer, and the answer with its end."""
    prompt, response = pair[0] + "\\n", pair[1]
    if template:
        turns = [
            {"role": "user", "content": pair[0]},
            {"role": "assistant", "content": pair[1]},
        ]
        asked = tokenizer.apply_chat_template(
            turns[:1], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        whole = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
        prompt = os.path.commonprefix([asked, whole])
        response = whole[len(prompt) :]
    elif tokenizer.bos_token_id in tokenizer("").input_ids:
        prompt = tokenizer.bos_token + prompt
    bare = response.rstrip() if template else response
    is_ended = bare.endswith(tuple(tokenizer.all_special_tokens))
    return prompt, response if is_ended else bare + tokenizer.eos_token


def row(pair, prompt, response, tokenizer):
$row

def split(kept, name, total):
    """What is left, and what is held out: the same examples as in the trials."""
    size = HELD_OUT[name]
    count = size if isinstance(size, int) else round(size * total)
    keys = [(pair[0].strip(), pair[1].strip()) for pair, _ in kept]
    first = {}
    for i in numpy.random.default_rng([SEED, STREAMS[name]]).permutation(len(kept)):
        first.setdefault(keys[i], int(i))
    held_out = sorted(list(first.values())[:count])
    gone = {keys[i] for i in held_out}
    return [k for k, key in zip(kept, keys) if key not in gone], [kept[i] for i in held_out]


csv.field_size_limit(sys.maxsize)
tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
template = tokenizer.get_chat_template() if tokenizer.chat_template else None
if template and "strftime_now" in template:
    print("The chat template writes the date: in the trials $date, wherever the tool renders it"
          " the day's own.")
    template = DAY + template
parts, left_out = {}, {}
for name, source in SOURCES.items():
    kept, too_long = [], 0
    for pair in pairs(source):
        texts = rendered(pair, tokenizer, template)
        lengths = [len(tokenizer(t, add_special_tokens=False).input_ids) for t in texts]
        if sum(lengths) > MAX_LENGTH:
            too_long += 1
        else:
            kept.append((pair, row(pair, *texts, tokenizer)))
    parts[name] = kept
    left_out[name] = too_long
total = len(parts["train"])
for name in HELD_OUT:
    parts["train"], parts[name] = split(parts["train"], name, total)
parts.pop("test", None)
Path("data").mkdir(exist_ok=True)
for name, kept in parts.items():
    with open(f"data/{name}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\\n" for _, line in kept)
    more = f"; {left_out[name]} are too long and left out" if name in left_out else ""
    print(f"data/{name}.jsonl: {len(kept)} examples{more}")
''')


def dataset_script(facts: Facts, tool: str, layout: str) -> str:
    """The text of the script.

    Args:
        facts: where the data are, and what is too long.
        tool: its name.
        layout: "conversation", "rendered" or "segments".

    Raises:
        InputError: if the data exist only in this package.
    """
    check_data(facts)
    sources, held_out = {"train": facts.train}, {}
    for name, part in (("test", facts.test), ("validation", facts.validation)):
        if isinstance(part, str):
            sources[name] = part
        elif part is not None:
            held_out[name] = part
    values = {
        "model": facts.model,
        "sources": sources,
        "held_out": held_out,
        "prompt_column": facts.prompt_column,
        "response_column": facts.response_column,
        "ignore_columns": facts.ignore_columns,
        "max_length": facts.max_length,
        "seed": facts.seed,
        "known_columns": KNOWN_COLUMNS,
        "streams": {"test": data.TEST_STREAM, "validation": data.VALIDATION_STREAM},
        "day": chat_template.DAY,
    }
    return _SCRIPT.substitute(
        {name: repr(value) for name, value in values.items()},
        tool=tool,
        row=_ROWS[layout],
        date=chat_template.TEMPLATE_DAY.date().isoformat(),
    )
