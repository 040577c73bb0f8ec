#pragma once
#include <cstdint>
#include <unordered_set>
#include <vector>

#include "kvstore/catalogue.h"

// Which entries to drop when room is needed.  A pure function of the catalogue's rows.
namespace ds4::kvstore {

struct EvictionInput {
  std::vector<EntryRow> rows;
  std::unordered_set<EntryId> held;        // leased or pinned: never chosen
  std::unordered_set<EntryId> referenced;  // tails that named sessions resume from
  std::uint64_t bytes_to_free = 0;
  std::int64_t now_s = 0;
  double half_life_s = 1.0;
};

// Entries to remove, in an order in which nothing is removed before what hangs on it.  Frees at
// least bytes_to_free, or all that may be freed.
//
// An entry's worth is (milliseconds that its resume point saves) * (chance of reuse) / (bytes that
// leaving it alone keeps busy).  What it saves is its own tokens and those of the chunks without a
// resume point before it; what it keeps busy is itself and those of these chunks that nothing else
// needs.  A last chunk without a resume point is worth nothing.
std::vector<EntryId> choose_victims(const EvictionInput& input);

}  // namespace ds4::kvstore
