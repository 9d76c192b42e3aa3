"""Writes what the model's own tokenizer and Hugging Face transformers say, for tests to compare with.

    python scripts/golden.py            writes tests/data/golden/
    python scripts/golden.py --check    asks them again, live, and compares the native engine with what they say

Runs in an environment of its own (`make parity`) with Parrot and scripts/parity-requirements.txt. Tokens of texts come
from llama.cpp, which defines this model's pre-tokenizer; next tokens come from transformers, greedily in float32.
"""

import argparse
import json
import os
import platform
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from golden_corpus import Corpus
from golden_families import family_logits
from golden_vocabulary import write_vocabulary
from parity import Golden, Next, Setting, compare, describe, read_golden, reference_engine
from transformers import AutoModelForCausalLM

from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import DEFAULT_MODEL, resolve
from parrotserve.models.tokenizer import load_tokenizer

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "golden"
SEED = "parrot"
TEXTS = 1000
PRE_TOKENIZED = 100
PRE_TOKENIZERS = ("default", "gpt-2", "llama-bpe", "qwen2", "tekken")
PROMPTS, SHORTEST, LONGEST = 40, 5, 1500
SHARED = 500
GENERATED = 64

Encode = Callable[..., list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare live instead of writing")
    arguments = parser.parse_args()
    files = resolve(DEFAULT_MODEL)
    if arguments.check:
        check(files)
    else:
        write(files.path)


def write(path: Path) -> None:
    """Draw texts and prompts, and write what is expected for them."""
    corpus = Corpus(SEED)
    with llama_cpp(path) as encode:
        texts = [tokenised(text, encode) for text in corpus.tokenizer_texts(TEXTS)]
        save("tokenizer.json", {"versions": versions()}, {"texts": texts})
        save("pre_tokenizers.json", {"versions": versions()}, pre_tokenized(path, texts[:: TEXTS // PRE_TOKENIZED]))
        prompts = draw_prompts(corpus, encode)
        shared = _cut(corpus, 0, SHARED, encode)
    save("families.json", {"versions": versions()}, {"models": family_logits()})
    model = load_transformers(path)
    alone = [greedy(model, prompt) for prompt in prompts]
    behind = [greedy(model, shared + prompt) for prompt in prompts]
    head = {"versions": versions(), "generated": GENERATED, "shared": shared}
    save("greedy.json", head, {"prompts": prompts, "alone": alone, "behind_shared": behind})


def check(files: ModelFiles) -> None:
    """Ask both references again about the committed texts and prompts. Exits with 1 if Parrot's tokenizer differs from
    llama.cpp, or the engine from transformers in more than near ties; differences from the files are only printed."""
    tokenizer = load_tokenizer(files)
    entries = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))["texts"]
    with llama_cpp(files.path) as encode:
        live = [tokenised(entry["text"], encode) for entry in entries]
    stale = [new["text"] for new, old in zip(live, entries, strict=True) if new != old]
    wrong = [entry["text"] for entry in live if tokenised(entry["text"], tokenizer.encode) != entry]
    print(f"{len(live)} texts: llama.cpp differs from the file in {len(stale)}, Parrot from llama.cpp in {len(wrong)}")
    golden = ask_again(load_transformers(files.path), read_golden())
    engine = reference_engine(files)
    failed = bool(wrong)
    for setting in Setting:
        differences = compare(engine, golden, setting)
        print(describe(setting, golden, differences), flush=True)
        failed = failed or not all(difference.allowed for difference in differences)
    sys.exit(failed)


def ask_again(model: torch.nn.Module, golden: Golden) -> Golden:
    """The committed prompts with what transformers predicts for them now."""
    shared, prompts = golden["shared"], golden["prompts"]
    alone = [greedy(model, prompt) for prompt in prompts]
    behind = [greedy(model, shared + prompt) for prompt in prompts]
    changed = sum(
        new["tokens"] != old["tokens"]
        for new, old in zip(alone + behind, golden["alone"] + golden["behind_shared"], strict=True)
    )
    print(f"{len(alone + behind)} continuations: transformers differs from the file in {changed}")
    return Golden(shared=shared, prompts=prompts, alone=alone, behind_shared=behind)


def tokenised(text: str, encode: Encode) -> dict[str, object]:
    """A text's tokens as plain text, and with control tokens recognised if that makes a difference."""
    plain, special = encode(text), encode(text, special=True)
    return {"text": text, "ids": plain} | ({"special": special} if special != plain else {})


def pre_tokenized(path: Path, texts: list[dict[str, object]]) -> dict[str, list[list[int]]]:
    """Tokens of these texts with the same vocabulary, but other models' rules for splitting a text into words."""
    found: dict[str, list[list[int]]] = {}
    with TemporaryDirectory() as folder:
        for pre in PRE_TOKENIZERS:
            tiny = Path(folder) / f"{pre}.gguf"
            write_vocabulary(tiny, like=path, pre=pre)
            with llama_cpp(tiny) as encode:
                found[pre] = [encode(str(entry["text"])) for entry in texts]
    return found


def draw_prompts(corpus: Corpus, encode: Encode) -> list[list[int]]:
    """Prompts with lengths drawn between the extremes, and one of each extreme."""
    lengths = [SHORTEST, LONGEST, *(corpus.length(SHORTEST, LONGEST) for _ in range(PROMPTS - 2))]
    return [_cut(corpus, kind, length, encode) for kind, length in enumerate(lengths)]


def _cut(corpus: Corpus, kind: int, length: int, encode: Encode) -> list[int]:
    return encode(corpus.long_text(kind, characters=length * 8))[:length]


@contextmanager
def llama_cpp(path: Path):
    """A context with the tokenizer of llama.cpp, through its server."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.warmup, parameters.port = 64, False, 0
    server = xllamacpp.Server(parameters)

    def encode(text: str, *, special: bool = False) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": special}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.listening_address}/tokenize", body, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]

    yield encode


def load_transformers(path: Path) -> torch.nn.Module:
    """The model as transformers itself reads and dequantises it from the file."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


@torch.inference_mode()
def greedy(model: torch.nn.Module, prompt: list[int]) -> Next:
    """The next tokens after a prompt, ignoring ends of generation."""
    started = time.monotonic()
    tokens: list[int] = []
    gaps: list[float] = []
    inputs, cache = torch.tensor([prompt]), None
    for _ in range(GENERATED):
        out = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        (first, second), (token, _) = (x.tolist() for x in out.logits[0, -1].topk(2))
        tokens.append(token)
        gaps.append(float(f"{first - second:.4g}"))
        inputs = torch.tensor([[token]])
    print(f"{len(prompt)} tokens: {time.monotonic() - started:.1f} s, least gap {min(gaps):.2g}", file=sys.stderr)
    return Next(tokens=tokens, gaps=gaps)


def versions() -> dict[str, str]:
    """The model and software that gave these results."""
    packages = ("torch", "transformers", "tokenizers", "gguf", "xllamacpp")
    return {"model": DEFAULT_MODEL, "python": platform.python_version()} | {p: version(p) for p in packages}


def save(name: str, head: dict[str, object], lists: dict[str, Iterable[object]]) -> None:
    """Write JSON with one entry per line, so that diffs show only the entries that changed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, entries in lists.items():
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    (FOLDER / name).write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
