// Pages of keys and values. Included per variant, after the tiles.
//
// A page holds 32 tokens. For each head it has the keys as two panels, [2][head_dim / 2][16 keys][2], followed by the
// values as sixteen pairs, [16][head_columns][2]. The tiles read both as they are stored, so no page is ever copied.

constexpr int kPage = Decoder::kPageTokens;
constexpr int kPagePanels = kPage / kLanes;
static_assert(kPage == 2 * kRun, "the values of a page are a run");

struct Geometry {
  int heads, kv_heads, head_dim, head_columns;  // columns: head_dim rounded up to whole groups of panels
  int group() const { return heads / kv_heads; }
  int key_pairs() const { return (head_dim + 1) / 2; }
  std::size_t key_panel() const { return static_cast<std::size_t>(key_pairs()) * kPanel; }
  std::size_t key_page() const { return kPagePanels * key_panel(); }
  std::size_t value_page() const { return static_cast<std::size_t>(kPage) * head_columns; }
  // Offset in a layer's KV of the keys of one head in one page; the values follow them.
  std::size_t page_of(int page, int head) const {
    return (static_cast<std::size_t>(page) * kv_heads + head) * (key_page() + value_page());
  }
};

// Writes one token's key of one head, in bf16. Slot `later`, which will be written soon, is prefetched, for a key is
// spread over as many cache lines as it has pairs.
static inline void write_key(const Geometry& g, std::uint16_t* kv, int slot, int later, int head,
                             const std::uint16_t* key) {
  const auto panel_of = [&](int at) { return kv + g.page_of(at / kPage, head) + at % kPage / kLanes * g.key_panel(); };
  std::uint16_t *to = panel_of(slot) + slot % kLanes * 2, *panel_later = panel_of(later);
  for (int pair = 0; pair < g.key_pairs(); ++pair) {
    prefetch_to_write(panel_later + pair * kPanel);
    std::memcpy(to + pair * kPanel, key + 2 * pair, 2 * sizeof *key);
  }
}

// Writes one token's value of one head: half of a pair, while another thread may write the other half. `alone`: no row
// of this step writes a later half, which is read with this one, at weight 0. It is zeroed, because what an earlier
// sequence left there must not count, not even if it is NaN.
static inline void write_value(const Geometry& g, std::uint16_t* kv, int slot, int later, int head,
                               const std::uint16_t* value, bool alone) {
  const auto pair_of = [&](int at) {
    const std::size_t pair = at % kPage / 2;
    return kv + g.page_of(at / kPage, head) + g.key_page() + pair * g.head_columns * 2;
  };
  std::uint16_t *pair = pair_of(slot) + slot % 2, *pair_later = pair_of(later);
  for (int d = 0; d < g.head_columns; d += kLanes) prefetch_to_write(pair_later + 2 * d);
  for (int d = 0; d < g.head_dim; ++d) pair[2 * d] = value[d];
  if (alone && slot % 2 == 0)
    for (int d = 0; d < g.head_dim; ++d) pair[2 * d + 1] = 0;
}
