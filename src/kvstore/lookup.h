#pragma once
#include <optional>
#include <span>

#include "kvstore/catalogue.h"
#include "kvstore/store.h"

// The walk from a key space's root along a prompt.
namespace ds4::kvstore {

// The longest resume point whose whole prefix is a prefix of `text`; of equally long ones the one
// with logits.  Cost: one pass of SHA-256 over the matched text and one index query an entry.
std::optional<Hit> find_longest(Catalogue& catalogue,
                                const KeySpace& space,
                                std::span<const std::byte> text,
                                const LookupLimits& limits);

}  // namespace ds4::kvstore
