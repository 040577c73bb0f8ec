#include "grammar/token_trie.h"

#include <algorithm>
#include <set>

#include "tokenizer/markers.h"

namespace ds4::grammar {

namespace {

// So many walks are remembered: above it all are dropped.
constexpr std::size_t kWalksMax = 8192;
// From this many tokens on a walk keeps one bit for each token of the vocabulary.
constexpr std::size_t kDenseMin = 1024;

// Bytes that stand in no UTF-8 text; the marker byte is one of them.
bool is_never_text(char c) {
  const auto byte = static_cast<std::uint8_t>(c);
  return byte == 0xC0 || byte == 0xC1 || byte >= 0xF5;
}

}  // namespace

TokenTrie::TokenTrie(const tokenizer::Tokenizer& tokenizer)
    : bytes_(tokenizer.size()),
      end_of_turn_(tokenizer.eos()) {
  for (std::size_t id = 0; id < bytes_.size(); ++id) {
    const TokenId token{static_cast<std::int32_t>(id)};
    if (tokenizer.kind(token) != tokenizer::TokenKind::kText) continue;
    const std::string_view bytes = tokenizer.token_bytes(token);
    if (std::none_of(bytes.begin(), bytes.end(), is_never_text)) bytes_[id] = bytes;
  }
  if (const auto marker = tokenizer.find_marker(tokenizer::kDsmlMarker))
    bytes_[static_cast<std::size_t>(marker->value())] =
        kMarkerByte + std::string(tokenizer::kDsmlMarker);
  build();
}

TokenTrie::TokenTrie(const std::vector<std::string>& token_bytes, TokenId end_of_turn)
    : bytes_(token_bytes),
      end_of_turn_(end_of_turn) {
  build();
}

void TokenTrie::build() {
  for (std::size_t id = 0; id < bytes_.size(); ++id)
    if (!bytes_[id].empty() && bytes_[id].size() < 0xFFFF)
      tokens_.push_back(TokenId{static_cast<std::int32_t>(id)});
  std::sort(tokens_.begin(), tokens_.end(), [&](TokenId a, TokenId b) {
    const int order = bytes_of(a).compare(bytes_of(b));
    return order != 0 ? order < 0 : a < b;
  });
  nodes_.push_back({.byte = 0, .depth = 0, .end = 0, .first_token = 0});
  std::vector<std::uint32_t> path = {kRoot};
  std::string_view before;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view bytes = bytes_of(tokens_[i]);
    const auto common = static_cast<std::size_t>(
        std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end()).first -
        before.begin());
    while (path.size() > common + 1) {
      nodes_[path.back()].end = static_cast<std::uint32_t>(nodes_.size());
      path.pop_back();
    }
    for (std::size_t at = common; at < bytes.size(); ++at) {
      path.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({.byte = static_cast<std::uint8_t>(bytes[at]),
                        .depth = static_cast<std::uint16_t>(at + 1),
                        .end = 0,
                        .first_token = static_cast<std::uint32_t>(i)});
    }
    depth_max_ = std::max(depth_max_, bytes.size());
    before = bytes;
  }
  for (const std::uint32_t node : path)
    nodes_[node].end = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back(
      {.byte = 0, .depth = 0, .end = 0, .first_token = static_cast<std::uint32_t>(tokens_.size())});
}

std::string_view TokenTrie::bytes_of(TokenId token) const {
  const auto id = static_cast<std::size_t>(token.value());
  return id < bytes_.size() ? std::string_view(bytes_[id]) : std::string_view();
}

void TokenTrie::prepare(const Grammar& grammar) const {
  constexpr std::size_t kBytesMin = 48;  // from here on a state lets much of the vocabulary pass
  constexpr std::size_t kWalksAhead = 64;
  std::set<std::pair<const Dfa*, Dfa::State>> made;
  for (NodeId id = 0; id < grammar.size(); ++id) {
    const DfaPtr& dfa = grammar[id].dfa;
    if (!dfa) continue;
    for (std::size_t at = Dfa::kStart; at < dfa->state_count(); ++at) {
      const auto state = static_cast<Dfa::State>(at);
      std::size_t bytes = 0;
      for (unsigned byte = 0; byte < 256; ++byte)
        bytes += dfa->next(state, static_cast<std::uint8_t>(byte)) != Dfa::kDead ? 1 : 0;
      if (bytes < kBytesMin || !made.insert({dfa.get(), state}).second) continue;
      walk(dfa, state);
      if (made.size() >= kWalksAhead) return;
    }
  }
}

std::shared_ptr<const TokenTrie::Walk> TokenTrie::walk(const DfaPtr& dfa, Dfa::State state) const {
  const std::lock_guard lock(mutex_);
  if (walks_.size() > kWalksMax) walks_.clear();
  std::shared_ptr<const Walk>& walk = walks_[{dfa, state}];
  if (!walk) walk = make_walk(*dfa, state);
  return walk;
}

std::shared_ptr<const TokenTrie::Walk> TokenTrie::make_walk(const Dfa& dfa,
                                                            Dfa::State state) const {
  auto walk = std::make_shared<Walk>();
  std::vector<Dfa::State> states(depth_max_ + 1, state);
  std::vector<std::uint32_t> characters(depth_max_ + 1);
  const auto node_count = static_cast<std::uint32_t>(size());
  for (std::uint32_t node = 1; node < node_count;) {
    const Node& it = nodes_[node];
    const Dfa::State from = states[it.depth - 1U];
    const Dfa::State to = dfa.next(from, it.byte);
    if (to == Dfa::kDead) {
      node = it.end;
      continue;
    }
    states[it.depth] = to;
    characters[it.depth] = characters[it.depth - 1U] + dfa.weight(from, it.byte);
    if (dfa.accepts(to)) {
      walk->exits.push_back({node, characters[it.depth]});
    } else {
      for (const TokenId token : tokens_at(node))
        walk->single.push_back({token, characters[it.depth]});
    }
    node = dfa.is_final(to) ? it.end : node + 1;
  }
  if (dfa.is_counted()) {
    std::sort(walk->single.begin(), walk->single.end(),
              [](const auto& a, const auto& b) { return a.characters > b.characters; });
  }
  if (walk->single.size() >= kDenseMin) {
    walk->bits.resize((vocab_size() + 63) / 64);
    for (const auto& [token, ignored] : walk->single) {
      const auto id = static_cast<std::size_t>(token.value());
      walk->bits[id / 64] |= std::uint64_t{1} << (id % 64);
    }
    if (!dfa.is_counted()) walk->single = {};
  }
  return walk;
}

}  // namespace ds4::grammar
