"""The native engine: Llama-family decoders on the CPU, over a paged KV cache shared by prefix.

`loop.NativeCore.step` is one step of it, and the place to begin. Around it are:

- the sequences: `open_sequences` takes commands in; `sequence` is one of them, `progress` moves it over its segments,
  `output` and `output_text` are an output under way, which `stops`, `grammar` and `grammars` may end or restrict;
- planning: `planner` decides what the next step holds, `plan` is that step under construction; `pace` says how long it
  may take, `minimum_share`, `shortest_first` and `speculation` (with `drafts`) who gets how much of it,
  `shared_prefixes` and `page_tables` which pages of KV;
- the cache: `cache`, made of `pages` and `radix`, and checked by `integrity`;
- the batch: `persistent_batch`, made by `batch` and `forest`;
- computing it: `backend` is the interface; `reference` and `attention` are NumPy, `kernels` is C++;
- choosing tokens: `step_sampling`, by `plain_sampler` or by `sampler`, which has `draw`, `logits`, `shortlist` and
  `uniform`;
- the engine as a whole: `build` makes it as `settings` say, within `memory`; `__main__` is its process, `engine` the
  service's end of that; `timing` tells the service what steps took.
"""
