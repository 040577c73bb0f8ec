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

// The way to one entry; nothing when it carries no state or its chain has a gap.
std::optional<Hit> hit_of_entry(Catalogue& catalogue, const EntryId& id);

Agreement find_agreement(Catalogue& catalogue,
                         const KeySpace& space,
                         std::span<const std::byte> text);

}  // namespace ds4::kvstore
