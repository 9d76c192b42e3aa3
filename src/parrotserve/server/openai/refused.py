"""Fields that are refused: those that would change the answer and cannot be honoured, and those most likely misspelt.

All other unknown fields are ignored, because clients send some that only concern OpenAI's own service.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from parrotserve.server.problems import misfit

_BY_SCHEMA = "use response_format of /v1/chat/completions, with a json_schema"
_BY_MOST = "use max_output_tokens"
_BY_NUCLEUS = "use top_p, min_p or top_k"
OF_BOTH: dict[str, str] = {
    **dict.fromkeys(
        (
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "structured_outputs",
            "json_schema",
            "grammar",
            "regex",
            "ebnf",
        ),
        _BY_SCHEMA,
    ),
    **dict.fromkeys(("typical_p", "tfs_z", "top_a", "mirostat", "xtc_probability", "dynatemp_range"), _BY_NUCLEUS),
    **dict.fromkeys(("max_output_tokens", "max_new_tokens", "n_predict", "num_predict"), "use max_tokens"),
    **dict.fromkeys(("stop_sequences", "stop_words"), "use stop"),
    **dict.fromkeys(("return_token_ids", "return_tokens_as_token_ids"), "answers are texts"),
    "stop_token_ids": "use stop, with texts",
    "include_stop_str_in_output": "a text ends before what it stopped at",
    "bad_words": "use logit_bias",
    "allowed_token_ids": "use logit_bias",
    "logits_processors": "use logit_bias",
    "n_probs": "use logprobs",
    "prompt_logprobs": "there are log-probabilities of what is written only",
    "truncate_prompt_tokens": "shorten the prompt",
    "skip_special_tokens": "control tokens are never part of a text",
    "repeat_penalty": "use repetition_penalty",
    "dry_multiplier": "use repetition_penalty",
    "use_beam_search": "use n, and a temperature above 0",
    "length_penalty": "it is for beam search; use n, and a temperature above 0",
    "moderation": "this service does not moderate",
}
"""Refused fields, and what to do instead. Most are from other servers that speak OpenAI's API."""
OF_CHAT = {
    **OF_BOTH,
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "this service writes text only",
    "web_search_options": "this service does not search the web",
    "add_generation_prompt": "the answer is a turn of its own; use /v1/completions to go on with a text",
    "continue_final_message": "the answer is a turn of its own; use /v1/completions to go on with a text",
    "chat_template": "the model's own is used",
    "enable_thinking": "put it into chat_template_kwargs",
    "documents": "put them into messages",
    "prompt": "put it into messages, or use /v1/completions",
    "echo": "use /v1/completions",
    "suffix": "models here write on from a conversation, and cannot fill in",
}
_OF_CHAT_ALONE = "use /v1/chat/completions"
OF_COMPLETIONS = {
    **OF_BOTH,
    **dict.fromkeys(
        ("response_format", "messages", "tools", "tool_choice", "functions", "function_call", "top_logprobs"),
        _OF_CHAT_ALONE,
    ),
    "chat_template_kwargs": f"prompts of completions are sent as they are; {_OF_CHAT_ALONE}",
    "max_completion_tokens": "use max_tokens",
    "suffix": "models here write on from a prompt, and cannot fill in",
}

OF_RESPONSES = {
    **OF_CHAT,
    **dict.fromkeys((name for name, instead in OF_BOTH.items() if instead == _BY_SCHEMA), "use text.format"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict", "num_predict"), _BY_MOST),
    **dict.fromkeys(("n_probs", "logprobs"), 'use include=["message.output_text.logprobs"], and top_logprobs'),
    **dict.fromkeys(("response_format", "schema"), "use text.format"),
    **dict.fromkeys(("n", "best_of"), "a response has one answer; use /v1/chat/completions"),
    "length_penalty": "it is for beam search",
    "use_beam_search": "a response has one answer; use a temperature above 0",
    "messages": "use input, or /v1/chat/completions",
    "documents": "put them into input",
    "prompt": "there are no stored prompts here; put it into input",
    "background": "ask with stream, or wait for the answer",
    "conversation": "use previous_response_id, or send the whole conversation as input",
    "context_management": "shorten the input",
    "truncation": "nothing is left out of a conversation here; use 'disabled', and shorten the input",
}

_NEUTRAL: dict[str, Any] = {
    "length_penalty": 1,
    "repeat_penalty": 1,
    "typical_p": 1,
    "tfs_z": 1,
    "truncate_prompt_tokens": -1,
    "n_predict": -1,
    "response_format": {"type": "text"},
    "skip_special_tokens": True,
    "add_generation_prompt": True,
    "tool_choice": "none",
    "truncation": "disabled",
    "n": 1,
    "best_of": 1,
}
"""Values of refused fields that change nothing, and so are allowed, besides those that are empty or false."""
_ASKING: dict[str, Any] = {
    "web_search_options": {},
    "skip_special_tokens": False,
    "add_generation_prompt": False,
    "enable_thinking": False,
}
"""Values that are empty or false, but do ask for something with these fields."""
_OPENAI_S_OWN = (
    "max_tool_calls",
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "verbosity",
)
_ALIKE = 0.88
"""Least similarity, of at most 1, of a misspelt name to that of a field: `max_token`, `temprature`."""
_MOST_LOOKED_AT = 20
_LONGEST_NAME = 40
"""Most characters of names that are compared, which takes time."""


def refuse_what_is_not_there(body: Mapping[str, Any], refused: Mapping[str, str], known: Collection[str]) -> None:
    """Raises for fields that are `refused`, and for unknown ones whose names are similar to a `known` one."""
    unknown = [name for name in body if name not in known]
    for name in unknown:
        if name in refused and not _is_neutral(name, body[name]):
            raise misfit(name, f"it is not supported: {refused[name]}")
    odd = [name for name in unknown if not (name in refused or name in _OPENAI_S_OWN or len(name) > _LONGEST_NAME)]
    folded = {_folded(name): name for name in sorted(known)} if odd else {}
    for name in odd[:_MOST_LOOKED_AT]:
        close = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=_ALIKE)
        if close:
            raise misfit(name, f"there is no such field, but there is {folded[close[0]]!r}")


def _is_neutral(name: str, value: Any) -> bool:
    if name in _ASKING and value == _ASKING[name]:
        return False
    return value in (None, [], {}, False, "", "none", _NEUTRAL.get(name))


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def not_served(value: object) -> None:
    """Validates a field that messages may have only without a value: clients send back the messages that they got."""
    if value is not None:
        raise PydanticCustomError("not_served", "it is not supported: use tool_calls, and text")
