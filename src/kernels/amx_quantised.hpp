// Products of up to sixteen rows with quantised panels by AMX. Included per variant, after quantised_rows.hpp; empty
// without AMX.
//
// A block's sums are the same integers that vector instructions compute, and they are scaled and added in the same way
// and order, so a row's result does not depend on which of the two multiplied it.
// (Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBSSD in volume 2.)

#if defined(PARROT_HAS_AMX)

// Unpacks the signed weights of one block of a panel to `to`, as a tile register loads them: lines of fours of
// consecutive inputs. `step` is the number of bytes from one line of the block to the next.
template <class Format>
static inline void unpack_panel(const std::uint8_t* panel, std::size_t step, std::uint8_t* to) {
  constexpr int kLines = Format::kInputs / 4 / Format::kFoursALine;
#pragma GCC unroll 16
  for (int line = 0; line < kLines; ++line) {
    TileInts packed;
    __builtin_memcpy(&packed, panel + line * step, sizeof packed);
#pragma GCC unroll 2
    for (int part = 0; part < Format::kFoursALine; ++part) {
      const TileInts fours = Format::signed_fours(packed, part);
      __builtin_memcpy(to + (line + part * kLines) * sizeof fours, &fours, sizeof fours);
    }
  }
}

// The rows of a product: the values and groups of the first one, and the number of groups in each.
struct QuantisedRowsIn {
  const Quantised* values;
  const RowGroup* groups;
  int groups_a_row;
};

// out[r] = row r by one panel of `blocks` blocks, for R rows. prepare(b) returns block b's signed weights, factors(b)
// its factors.
template <class Format, int R, class Prepare, class FactorsOf>
static inline void multiply_by_tile(const QuantisedRowsIn& a, int blocks, const Prepare& prepare,
                                    const FactorsOf& factors, float* out, std::size_t stride) {
  constexpr int kBlocksAGroup = Format::kGroup / Format::kInputs;
  alignas(64) std::int32_t sums[R][kLanes];
  const std::size_t a_stride = static_cast<std::size_t>(a.groups_a_row) * Format::kGroup;
  TileVector acc[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r] = TileVector{};
  for (int b = 0; b < blocks; ++b) {
    PARROT_TILE_LOAD(6, prepare(b), 64);
    PARROT_TILE_LOAD(4, a.values + b * Format::kInputs, a_stride);
    PARROT_TILE_ZERO(0);
    PARROT_TILE_MULTIPLY_BYTES(0, 4, 6);
    PARROT_TILE_STORE(0, sums, 64);
    const typename Format::Factors scales = factors(b);
    const RowGroup* groups = a.groups + b / kBlocksAGroup;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      TileInts sum;
      __builtin_memcpy(&sum, sums[r], sizeof sum);
      acc[r] = Format::scaled(acc[r], sum_floats(sum), scales, groups[r * a.groups_a_row], b % kBlocksAGroup);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) store_tile(out + r * stride, acc[r]);
}

#endif
