#include "tokenizer/bpe.h"

#include <map>
#include <random>
#include <utility>

#include <gtest/gtest.h>

namespace ds4::tokenizer {
namespace {

using Rules = std::map<std::pair<std::uint32_t, std::uint32_t>, MergeTable::Merge>;

// The definition, followed to the letter.
std::vector<std::uint32_t> merge_by_definition(const Rules& rules, std::vector<std::uint32_t> ids) {
  for (;;) {
    std::size_t best = ids.size();
    MergeTable::Merge best_merge;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rule = rules.find({ids[i], ids[i + 1]});
      if (rule != rules.end() && rule->second.rank < best_merge.rank) {
        best = i;
        best_merge = rule->second;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = best_merge.product;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, AgreesWithTheDefinitionForEveryLength) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Rules rules;
    MergeTable table(40);
    std::uint32_t next_id = 4;
    for (std::uint32_t rank = 0; rank < 40; ++rank) {
      const std::pair<std::uint32_t, std::uint32_t> pair(random() % next_id, random() % next_id);
      if (rules.count(pair) > 0) continue;
      const MergeTable::Merge merge{rank, next_id++};
      rules[pair] = merge;
      table.add(pair.first, pair.second, merge);
    }
    for (const std::size_t count : {0u, 1u, 2u, 3u, 31u, 32u, 33u, 64u, 200u}) {
      std::vector<std::uint32_t> ids(count);
      for (auto& id : ids)
        id = random() % 4;
      const auto expected = merge_by_definition(rules, ids);
      merge_piece(table, ids);
      ASSERT_EQ(ids, expected) << "round " << round << ", " << count << " symbols";
    }
  }
}

TEST(Bpe, TakesAtMostThreeLookupsASymbol) {
  MergeTable table(20);
  for (std::uint32_t i = 0; i < 20; ++i)
    table.add(i, i, {i, i + 1});  // 'a' doubles again and again
  for (const std::size_t count : {32u, 33u, 1000u, 1u << 20}) {
    std::vector<std::uint32_t> ids(count, 0);
    EXPECT_LE(merge_piece(table, ids), 3 * count) << count;
    if (count == 1u << 20) {
      EXPECT_EQ(ids, std::vector<std::uint32_t>{20});
    }
  }
}

TEST(Bpe, AnUnknownPairHasNoMerge) {
  MergeTable table(1);
  table.add(1, 2, {0, 3});
  EXPECT_EQ(table.find(1, 2).product, 3u);
  EXPECT_EQ(table.find(2, 1).rank, MergeTable::kNoMerge);
}

}  // namespace
}  // namespace ds4::tokenizer
