"""llama.cpp without its server, for `benchmarks/engine.py`: orders on standard input, times on standard output.

Talks to llama.cpp's C interface, in the library that is named on the command line. One order a line, as JSON, and one
answer:

    {"do": "load", "weights": PATH, "flash": true, "threads": 2, "context": 8192, "sequences": 64}
    {"do": "prefill", "prompt": [token, ...]}                                           -> {"seconds": ...}
    {"do": "decode", "prefix": [token, ...], "suffixes": [[token, ...], ...], "steps": 16} -> {"seconds": [a step, ...]}

Sequences share the prefix by `llama_memory_seq_cp` in a unified KV cache; it is computed again only when it changes.
Sampling is left out, in its favour: the next tokens are those of the suffix, over and over.
"""

import ctypes as c
import json
import struct
import sys
import time

LIB = c.CDLL(sys.argv[1])
MOST_ROWS = 2048
SETTLING = 1
"""Steps that are not counted."""

# Where the fields that are set here lie in `llama_context_params`, with their defaults: other releases differ.
CONTEXT_FIELDS = {
    "n_ctx": (0, "I", 512),
    "n_batch": (4, "I", 2048),
    "n_ubatch": (8, "I", 512),
    "n_seq_max": (12, "I", 1),
    "n_threads": (28, "i", 4),
    "n_threads_batch": (32, "i", 4),
    "flash_attn": (52, "i", -1),
    "swa_full": (132, "?", True),
    "kv_unified": (133, "?", False),
}


class Params(c.Structure):
    """Any parameter structure, larger than it is: it goes by value, last, in memory."""

    _fields_ = (("raw", c.c_uint8 * 512),)


class Batch(c.Structure):
    """`llama_batch`."""

    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


def declare() -> None:
    """Types of the functions used."""
    pointer, integer = c.c_void_p, c.c_int32
    for name, result, arguments in (
        ("llama_model_default_params", Params, []),
        ("llama_context_default_params", Params, []),
        ("llama_model_load_from_file", pointer, [c.c_char_p, Params]),
        ("llama_init_from_model", pointer, [pointer, Params]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_clear", None, [pointer, c.c_bool]),
        ("llama_memory_seq_cp", None, [pointer, integer, integer, integer, integer]),
        ("llama_memory_seq_rm", c.c_bool, [pointer, integer, integer, integer]),
        ("llama_batch_init", Batch, [integer, integer, integer]),
        ("llama_decode", integer, [pointer, Batch]),
        ("llama_synchronize", None, [pointer]),
        ("llama_get_logits_ith", c.POINTER(c.c_float), [pointer, integer]),
        ("llama_log_set", None, [pointer, pointer]),
    ):
        function = getattr(LIB, name)
        function.restype, function.argtypes = result, arguments


class Llama:
    """One model with one context."""

    def __init__(self, order: dict) -> None:
        model = LIB.llama_model_load_from_file(order["weights"].encode(), LIB.llama_model_default_params())
        wanted = {
            "n_ctx": order["context"],
            "n_batch": MOST_ROWS,
            "n_ubatch": 512,
            "n_seq_max": order["sequences"] + 1,
            "n_threads": order["threads"],
            "n_threads_batch": order["threads"],
            "flash_attn": int(order["flash"]),
            "kv_unified": True,
        }
        params = LIB.llama_context_default_params()
        for name, (place, kind, default) in CONTEXT_FIELDS.items():
            (found,) = struct.unpack_from(kind, params.raw, place)
            if found != default:
                sys.exit(f"This llama.cpp keeps {name} elsewhere: {found} where {default} was expected.")
            struct.pack_into(kind, params.raw, place, wanted.get(name, default))
        self.context = model and LIB.llama_init_from_model(model, params)
        if not self.context:
            sys.exit("llama.cpp could not load the model.")
        self.memory = LIB.llama_get_memory(self.context)
        self.batch = LIB.llama_batch_init(MOST_ROWS, 0, 1)
        self.prefix: list[int] = []
        self.suffixes: list[list[int]] = []

    def run(self, rows: list[tuple[int, int, int, bool]]) -> float:
        """Seconds for these rows: token, position, sequence, whether its logits are wanted."""
        self.batch.n_tokens = len(rows)
        for row, (token, position, sequence, logits) in enumerate(rows):
            self.batch.token[row] = token
            self.batch.pos[row] = position
            self.batch.n_seq_id[row] = 1
            self.batch.seq_id[row][0] = sequence
            self.batch.logits[row] = logits
        began = time.perf_counter()
        if LIB.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama.cpp could not run the batch.")
        LIB.llama_synchronize(self.context)
        return time.perf_counter() - began

    def fill(self, prompt: list[int]) -> float:
        """Prefill sequence 0 from nothing."""
        LIB.llama_memory_clear(self.memory, False)
        rows = [(token, place, 0, place == len(prompt) - 1) for place, token in enumerate(prompt)]
        return self.run_all(rows)

    def run_all(self, rows: list[tuple[int, int, int, bool]]) -> float:
        return sum(self.run(rows[start : start + MOST_ROWS]) for start in range(0, len(rows), MOST_ROWS))

    def prefill(self, order: dict) -> dict:
        self.prefix, self.suffixes = [], []
        return {"seconds": self.fill(order["prompt"])}

    def decode(self, order: dict) -> dict:
        prefix, suffixes = order["prefix"], order["suffixes"]
        self.set_up(prefix, suffixes)
        beginning, length = len(prefix), len(suffixes[0])
        seconds = [
            self.run(
                [
                    (suffix[step % length], beginning + length + step, sequence, True)
                    for sequence, suffix in enumerate(suffixes, start=1)
                ]
            )
            for step in range(SETTLING + order["steps"])
        ]
        for sequence in range(1, len(suffixes) + 1):
            LIB.llama_memory_seq_rm(self.memory, sequence, beginning + length, -1)
        return {"seconds": seconds[SETTLING:]}

    def set_up(self, prefix: list[int], suffixes: list[list[int]]) -> None:
        """What is not there from the time before."""
        if self.prefix != prefix:
            self.fill(prefix)
            self.prefix, self.suffixes = prefix, []
        if self.suffixes == suffixes:
            return
        for sequence in range(1, len(self.suffixes) + 1):
            LIB.llama_memory_seq_rm(self.memory, sequence, -1, -1)
        for sequence in range(1, len(suffixes) + 1):
            LIB.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)
        self.run_all(
            [
                (token, len(prefix) + place, sequence, False)
                for sequence, suffix in enumerate(suffixes, start=1)
                for place, token in enumerate(suffix)
            ]
        )
        self.suffixes = suffixes


def main() -> None:
    declare()
    quiet = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda *_: None)
    LIB.llama_log_set(quiet, None)
    LIB.llama_backend_init()
    llama: Llama | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "load":
            llama = Llama(order)
            answer: dict = {"loaded": True}
        else:
            answer = getattr(llama, order["do"])(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
