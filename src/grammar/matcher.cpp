#include "grammar/matcher.h"

#include <algorithm>

#include "base/error.h"

namespace ds4::grammar {

namespace {

// Beyond these, readings are given up: fewer texts are allowed, never wrong ones.
constexpr std::size_t kReadingsMax = 4096;
constexpr std::uint32_t kDepthMax = 100;
constexpr std::size_t kMasksMax = 16;

}  // namespace

std::size_t Matcher::FrameHash::operator()(const FrameKey& key) const {
  std::uint64_t hash = key.node;
  for (const std::uint64_t value : {key.position, key.below})
    hash = (hash ^ (hash >> 29U) ^ value) * 0x9E3779B97F4A7C15U;
  return static_cast<std::size_t>(hash ^ (hash >> 32U));
}

Matcher::Matcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::move(grammar)),
      trie_(std::move(trie)) {
  frames_.push_back({.node = 0, .position = 0, .below = kBottom, .depth = 0});
  sets_.emplace_back();
  enter(grammar_->root(), kBottom, now_);
}

Matcher::FrameId Matcher::frame(NodeId node, std::uint32_t position, FrameId below) {
  const auto [place, added] =
      frame_ids_.try_emplace({node, position, below}, static_cast<FrameId>(frames_.size()));
  if (added)
    frames_.push_back(
        {.node = node, .position = position, .below = below, .depth = frames_[below].depth + 1});
  return place->second;
}

void Matcher::add_reading(const Reading& reading, Readings& out) {
  if (out.readings.size() >= kReadingsMax) return;
  if (std::find(out.readings.begin(), out.readings.end(), reading) == out.readings.end())
    out.readings.push_back(reading);
}

// --- from rules to terminals ---

void Matcher::enter(NodeId id, FrameId below, Readings& out) {
  const Node& node = (*grammar_)[id];
  if (node.kind == Node::Kind::kTerminal) {
    if (node.dfa->accepts_nothing()) return;
    const Reading reading{.terminal = id, .state = Dfa::kStart, .characters = 0, .below = below};
    if (!node.dfa->is_final(Dfa::kStart)) add_reading(reading, out);
    if (may_leave(node, reading)) leave(below, out);
    return;
  }
  if (node.nests && frames_[below].depth > kDepthMax) return;
  const std::pair entry{id, below};
  if (std::find(entered_.begin(), entered_.end(), entry) != entered_.end()) return;
  entered_.push_back(entry);
  switch (node.kind) {
    case Node::Kind::kTerminal:
      break;
    case Node::Kind::kSequence:
      if (node.parts.empty()) {
        leave(below, out);
      } else {
        // The last part stands on what is below, so that lists do not pile up.
        enter(node.parts.front(), node.parts.size() == 1 ? below : frame(id, 1, below), out);
      }
      break;
    case Node::Kind::kChoice:
      for (const NodeId part : node.parts)
        enter(part, below, out);
      break;
    case Node::Kind::kRepeat:
      if (node.least == 0) leave(below, out);
      if (node.most > 0) enter(node.parts.front(), frame(id, 1, below), out);
      break;
    case Node::Kind::kMembers:
      enter_members(id, 0, below, out);
      break;
  }
  entered_.pop_back();
}

std::uint32_t Matcher::set_with(std::uint32_t set, std::size_t part) {
  std::vector<bool> more = sets_[set];
  more.resize(std::max(more.size(), part + 1));
  more[part] = true;
  const auto [place, added] =
      set_ids_.try_emplace(std::move(more), static_cast<std::uint32_t>(sets_.size()));
  if (added) sets_.push_back(place->first);
  return place->second;
}

void Matcher::enter_members(NodeId id, std::uint32_t set, FrameId below, Readings& out) {
  const Node& node = (*grammar_)[id];
  const auto had = [&](std::size_t part) { return part < sets_[set].size() && sets_[set][part]; };
  const bool is_first = sets_[set].empty();
  bool is_complete = true;
  const std::size_t part_count = node.parts.size();
  for (std::size_t part = 0; part < part_count; ++part) {
    if (had(part)) continue;
    if (part < node.least) is_complete = false;
    enter(is_first ? node.parts[part] : node.later_parts[part],
          frame(id, set_with(set, part), below), out);
  }
  if (node.other != Node::kNone) {
    // One more bit says that something was there.
    enter(is_first ? node.other : node.later_parts[part_count],
          frame(id, set_with(set, part_count), below), out);
  }
  if (is_complete) leave(below, out);
}

void Matcher::leave(FrameId id, Readings& out) {
  if (id == kBottom) {
    out.can_end = true;
    return;
  }
  if (std::find(left_.begin(), left_.end(), id) != left_.end()) return;
  left_.push_back(id);
  const Frame top = frames_[id];
  const Node& node = (*grammar_)[top.node];
  switch (node.kind) {
    case Node::Kind::kSequence: {
      const bool is_last = top.position + 1 == node.parts.size();
      enter(node.parts[top.position],
            is_last ? top.below : frame(top.node, top.position + 1, top.below), out);
      break;
    }
    case Node::Kind::kRepeat: {
      if (top.position >= node.least) leave(top.below, out);
      // Without an upper limit what was had beyond the lower one makes no difference.
      const bool counts = node.most != kUnbounded || top.position < node.least;
      const std::uint32_t next = counts ? top.position + 1 : top.position;
      if (top.position < node.most)
        enter(node.parts.front(), frame(top.node, next, top.below), out);
      break;
    }
    case Node::Kind::kMembers:
      enter_members(top.node, top.position, top.below, out);
      break;
    case Node::Kind::kTerminal:
    case Node::Kind::kChoice:
      break;
  }
  left_.pop_back();
}

bool Matcher::may_leave(const Node& terminal, const Reading& reading) const {
  return terminal.dfa->accepts(reading.state) && reading.characters >= terminal.least &&
         reading.characters <= terminal.most;
}

// --- from byte to byte ---

void Matcher::step(const Readings& from, std::uint8_t byte, Readings& to) {
  to.readings.clear();
  to.can_end = false;
  for (const Reading& reading : from.readings) {
    const Node& node = (*grammar_)[reading.terminal];
    Reading next = reading;
    next.state = node.dfa->next(reading.state, byte);
    if (next.state == Dfa::kDead) continue;
    if (node.dfa->is_counted()) {
      next.characters += node.dfa->weight(reading.state, byte);
      if (next.characters > node.most) continue;
    }
    if (!node.dfa->is_final(next.state)) add_reading(next, to);
    if (may_leave(node, next)) leave(reading.below, to);
  }
}

bool Matcher::accept_bytes(std::string_view bytes) {
  if (bytes.empty()) return false;
  Readings from = now_;
  Readings to;
  for (const char byte : bytes) {
    step(from, static_cast<std::uint8_t>(byte), to);
    if (to.readings.empty() && !to.can_end) return false;
    std::swap(from, to);
  }
  now_ = std::move(from);
  return true;
}

bool Matcher::accept(TokenId token) {
  if (token == trie_->end_of_turn()) return now_.can_end;
  return accept_bytes(trie_->bytes_of(token));
}

// --- which tokens ---

const sample::TokenSet& Matcher::allowed() {
  ++turn_;
  for (Remembered& mask : masks_) {
    if (mask.readings != now_) continue;
    mask.used = turn_;
    return mask.tokens;
  }
  if (masks_.size() < kMasksMax) {
    masks_.push_back({now_, sample::TokenSet(trie_->vocab_size()), turn_});
    compute(masks_.back().tokens);
    return masks_.back().tokens;
  }
  Remembered& oldest =
      *std::min_element(masks_.begin(), masks_.end(),
                        [](const Remembered& a, const Remembered& b) { return a.used < b.used; });
  oldest.readings = now_;
  oldest.used = turn_;
  oldest.tokens.clear();
  compute(oldest.tokens);
  return oldest.tokens;
}

void Matcher::compute(sample::TokenSet& out) {
  if (now_.can_end) out.insert(trie_->end_of_turn());
  for (const Reading& reading : now_.readings)
    add_walk(reading, out);
  // Only what nests beyond the limit can get here: the text ends as it is.
  if (out.count() == 0) out.insert(trie_->end_of_turn());
}

void Matcher::add_walk(const Reading& reading, sample::TokenSet& out) {
  const Node& node = (*grammar_)[reading.terminal];
  const auto walk = trie_->walk(node.dfa, reading.state);
  const std::uint32_t room = node.most - reading.characters;
  // The longest come first: those that do not fit stand in front.
  const auto fitting = std::partition_point(
      walk->single.begin(), walk->single.end(),
      [&](const TokenTrie::Walk::Counted& it) { return it.characters > room; });
  const auto too_long = static_cast<std::size_t>(fitting - walk->single.begin());
  if (walk->bits.empty() || too_long > walk->single.size() / 2) {
    for (auto token = fitting; token != walk->single.end(); ++token)
      out.insert(token->token);
  } else if (too_long == 0) {
    out.insert_words(walk->bits);
  } else {
    // Another reading may allow what is left out here.
    words_ = walk->bits;
    for (auto token = walk->single.begin(); token != fitting; ++token) {
      const auto id = static_cast<std::size_t>(token->token.value());
      words_[id / 64] &= ~(std::uint64_t{1} << (id % 64));
    }
    out.insert_words(words_);
  }
  if (walk->exits.empty()) return;
  if (scratch_.empty()) scratch_.resize(1);
  Readings rest;
  leave(reading.below, rest);
  for (const TokenTrie::Walk::Exit& exit : walk->exits) {
    const std::uint32_t characters = reading.characters + exit.characters;
    if (node.dfa->is_counted() && (characters < node.least || characters > node.most)) continue;
    for (const TokenId token : trie_->tokens_at(exit.node))
      out.insert(token);
    add_rest(exit.node, rest, out);
  }
}

// Tokens below `node` whose further bytes fit what follows.
void Matcher::add_rest(std::uint32_t node, const Readings& from, sample::TokenSet& out) {
  if (from.readings.empty()) return;
  const std::size_t depth = rest_depth_++;
  if (scratch_.size() <= depth) scratch_.resize(depth + 1);
  const std::uint32_t end = (*trie_)[node].end;
  for (std::uint32_t child = node + 1; child < end; child = (*trie_)[child].end) {
    Readings next = std::move(scratch_[depth]);
    step(from, (*trie_)[child].byte, next);
    if (!next.readings.empty() || next.can_end) {
      for (const TokenId token : trie_->tokens_at(child))
        out.insert(token);
      add_rest(child, next, out);
    }
    scratch_[depth] = std::move(next);
  }
  --rest_depth_;
}

}  // namespace ds4::grammar
