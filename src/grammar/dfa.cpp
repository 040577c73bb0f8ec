#include "grammar/dfa.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::grammar {

namespace {

constexpr std::size_t kNfaStatesMax = 200000;

// A nondeterministic automaton with at most two unlabelled ways, or one labelled one, out of each
// state.
class Nfa {
 public:
  struct State {
    const ByteSet* bytes = nullptr;  // the labelled way, or null
    std::vector<std::uint32_t> to;
  };

  explicit Nfa(const Expression& expression) {
    start = add();
    end = build(expression, start);
  }

  const State& operator[](std::uint32_t id) const { return states_[id]; }
  std::size_t size() const { return states_.size(); }

  std::uint32_t start = 0;
  std::uint32_t end = 0;

 private:
  std::uint32_t add() {
    if (states_.size() >= kNfaStatesMax)
      throw Error(ErrorCode::kInvalidArgument, "the pattern is too large");
    states_.emplace_back();
    return static_cast<std::uint32_t>(states_.size() - 1);
  }
  void link(std::uint32_t from, std::uint32_t to) { states_[from].to.push_back(to); }

  // Adds what leads from `from` through the expression; returns where it ends.
  std::uint32_t build(const Expression& expression, std::uint32_t from) {
    switch (expression.kind) {
      case Expression::Kind::kBytes: {
        const std::uint32_t before = add();
        const std::uint32_t after = add();
        link(from, before);
        states_[before].bytes = &expression.bytes;
        link(before, after);
        return after;
      }
      case Expression::Kind::kSequence:
        for (const Expression& part : expression.parts)
          from = build(part, from);
        return from;
      case Expression::Kind::kChoice: {
        const std::uint32_t after = add();
        for (const Expression& part : expression.parts) {
          const std::uint32_t before = add();
          link(from, before);
          link(build(part, before), after);
        }
        return after;
      }
      case Expression::Kind::kRepeat:
        return build_repeat(expression, from);
    }
    return from;
  }

  std::uint32_t build_repeat(const Expression& expression, std::uint32_t from) {
    const Expression& part = expression.parts.front();
    for (std::uint32_t i = 0; i < expression.least; ++i)
      from = build(part, from);
    if (expression.most == kUnbounded) {
      const std::uint32_t loop = add();
      link(from, loop);
      link(build(part, loop), loop);
      const std::uint32_t after = add();
      link(loop, after);
      return after;
    }
    const std::uint32_t after = add();
    for (std::uint32_t i = expression.least; i < expression.most; ++i) {
      link(from, after);
      from = build(part, from);
    }
    link(from, after);
    return after;
  }

  std::vector<State> states_;
};

// Subset construction.
class Determinizer {
 public:
  explicit Determinizer(const Nfa& nfa) : nfa_(nfa), seen_(nfa.size()) { classify(); }

  DfaPtr run() {
    place(closure({nfa_.start}));
    for (std::size_t at = 0; at < sets_.size(); ++at)
      expand(static_cast<Dfa::State>(at + Dfa::kStart));
    return builder_.build();
  }

 private:
  // One byte out of each class of bytes that the automaton does not tell apart.
  void classify() {
    std::vector<const ByteSet*> labels;
    for (std::uint32_t i = 0; i < nfa_.size(); ++i)
      if (nfa_[i].bytes != nullptr) labels.push_back(nfa_[i].bytes);
    const auto by_bits = [](const ByteSet* a, const ByteSet* b) {
      for (std::size_t i = 0; i < a->size(); ++i)
        if ((*a)[i] != (*b)[i]) return (*a)[i] < (*b)[i];
      return false;
    };
    // Most labels are copies of few.
    std::sort(labels.begin(), labels.end());
    labels.erase(std::unique(labels.begin(), labels.end()), labels.end());
    std::sort(labels.begin(), labels.end(), by_bits);
    labels.erase(std::unique(labels.begin(), labels.end(),
                             [](const ByteSet* a, const ByteSet* b) { return *a == *b; }),
                 labels.end());
    std::map<std::vector<bool>, std::size_t> classes;
    for (unsigned byte = 0; byte < 256; ++byte) {
      std::vector<bool> member(labels.size());
      for (std::size_t i = 0; i < labels.size(); ++i)
        member[i] = labels[i]->test(byte);
      const auto [place, added] = classes.emplace(std::move(member), members_.size());
      if (added) members_.emplace_back();
      members_[place->second].push_back(static_cast<std::uint8_t>(byte));
    }
  }

  // Everything that `states` reach without a byte, sorted.
  std::vector<std::uint32_t> closure(std::vector<std::uint32_t> states) {
    std::vector<std::uint32_t> reached;
    ++round_;
    while (!states.empty()) {
      const std::uint32_t id = states.back();
      states.pop_back();
      if (seen_[id] == round_) continue;
      seen_[id] = round_;
      reached.push_back(id);
      if (nfa_[id].bytes == nullptr)
        states.insert(states.end(), nfa_[id].to.begin(), nfa_[id].to.end());
    }
    // Only what decides anything: labelled states and the end.
    std::erase_if(reached,
                  [&](std::uint32_t id) { return nfa_[id].bytes == nullptr && id != nfa_.end; });
    std::sort(reached.begin(), reached.end());
    return reached;
  }

  Dfa::State place(std::vector<std::uint32_t> set) {
    const auto next = static_cast<Dfa::State>(sets_.size() + Dfa::kStart);
    const auto [place, added] = ids_.emplace(set, next);
    if (!added) return place->second;
    if (!sets_.empty()) builder_.add_state();
    if (std::binary_search(set.begin(), set.end(), nfa_.end)) builder_.set_accepting(next);
    sets_.push_back(std::move(set));
    return next;
  }

  void expand(Dfa::State from) {
    for (const std::vector<std::uint8_t>& bytes : members_) {
      std::vector<std::uint32_t> targets;
      for (const std::uint32_t id : sets_[from - Dfa::kStart]) {
        const Nfa::State& state = nfa_[id];
        if (state.bytes != nullptr && state.bytes->test(bytes.front()))
          targets.insert(targets.end(), state.to.begin(), state.to.end());
      }
      if (targets.empty()) continue;
      const Dfa::State to = place(closure(std::move(targets)));
      for (const std::uint8_t byte : bytes)
        builder_.add(from, byte, byte, to);
    }
  }

  const Nfa& nfa_;
  std::vector<std::uint32_t> seen_;  // [nfa state] the round that reached it
  std::uint32_t round_ = 0;
  std::vector<std::vector<std::uint8_t>> members_;  // bytes of each class
  std::vector<std::vector<std::uint32_t>> sets_;    // [state - kStart]
  std::map<std::vector<std::uint32_t>, Dfa::State> ids_;
  DfaBuilder builder_;
};

// The texts of `a` that `b` has, or has not.
DfaPtr product(const Dfa& a, const Dfa& b, bool b_accepts) {
  using Pair = std::pair<Dfa::State, Dfa::State>;
  DfaBuilder dfa;
  const Pair start{Dfa::kStart, b.accepts_nothing() ? Dfa::kDead : Dfa::kStart};
  const auto accepts = [&](const Pair& at) {
    return a.accepts(at.first) && b.accepts(at.second) == b_accepts;
  };
  if (a.accepts_nothing()) return dfa.build();
  if (accepts(start)) dfa.set_accepting(Dfa::kStart);
  std::map<Pair, Dfa::State> ids = {{start, Dfa::kStart}};
  std::vector<Pair> work = {start};
  while (!work.empty()) {
    const Pair at = work.back();
    work.pop_back();
    for (unsigned byte = 0; byte < 256; ++byte) {
      const auto it = static_cast<std::uint8_t>(byte);
      const Pair to{a.next(at.first, it), b.next(at.second, it)};
      if (to.first == Dfa::kDead || (b_accepts && to.second == Dfa::kDead)) continue;
      auto place = ids.find(to);
      if (place == ids.end()) {
        place = ids.emplace(to, dfa.add_state(accepts(to))).first;
        work.push_back(to);
      }
      dfa.add(ids.at(at), it, it, place->second);
    }
  }
  return dfa.build();
}

}  // namespace

DfaBuilder::DfaBuilder() : rows_(2), accepting_(2) {}

Dfa::State DfaBuilder::add_state(bool accepting) {
  if (rows_.size() >= kStatesMax)
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the pattern or length limit takes more than {} states", kStatesMax));
  rows_.emplace_back();
  accepting_.push_back(accepting);
  return static_cast<Dfa::State>(rows_.size() - 1);
}

void DfaBuilder::add(
    Dfa::State from, std::uint8_t first, std::uint8_t last, Dfa::State to, std::uint8_t weight) {
  for (unsigned byte = first; byte <= last; ++byte) {
    rows_[from].next[byte] = to;
    rows_[from].weight[byte] = weight;
  }
  counted_ = counted_ || weight > 0;
}

std::vector<bool> DfaBuilder::useful_states() const {
  std::vector<std::vector<Dfa::State>> sources(rows_.size());
  for (std::size_t from = Dfa::kStart; from < rows_.size(); ++from) {
    Dfa::State last = Dfa::kDead;
    for (const Dfa::State to : rows_[from].next) {
      if (to != last && to != Dfa::kDead) sources[to].push_back(static_cast<Dfa::State>(from));
      last = to;
    }
  }
  std::vector<bool> useful(accepting_);
  std::vector<Dfa::State> work;
  for (std::size_t state = Dfa::kStart; state < rows_.size(); ++state)
    if (useful[state]) work.push_back(static_cast<Dfa::State>(state));
  while (!work.empty()) {
    const Dfa::State state = work.back();
    work.pop_back();
    for (const Dfa::State from : sources[state]) {
      if (useful[from]) continue;
      useful[from] = true;
      work.push_back(from);
    }
  }
  return useful;
}

DfaPtr DfaBuilder::build() {
  const std::vector<bool> useful = useful_states();
  for (Row& row : rows_)
    for (Dfa::State& to : row.next)
      if (!useful[to]) to = Dfa::kDead;
  auto dfa = std::make_shared<Dfa>();
  // Columns that are equal in every row are one class: told apart by two independent hashes.
  std::array<std::pair<std::uint64_t, std::uint64_t>, 256> columns{};
  for (const Row& row : rows_) {
    for (unsigned byte = 0; byte < 256; ++byte) {
      const std::uint64_t value = row.next[byte] | (std::uint64_t{row.weight[byte]} << 16U);
      auto& [first, second] = columns[byte];
      first = (first ^ (value + 1)) * 0x9E3779B97F4A7C15U;
      second = (second + value + 1) * 0xD6E8FEB86659FD93U;
      second ^= second >> 32U;
    }
  }
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint8_t> classes;
  std::vector<std::uint8_t> examples;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const auto [place, added] =
        classes.emplace(columns[byte], static_cast<std::uint8_t>(examples.size()));
    if (added) examples.push_back(static_cast<std::uint8_t>(byte));
    dfa->class_of_[byte] = place->second;
  }
  dfa->class_count_ = examples.size();
  for (const Row& row : rows_) {
    bool is_final = true;
    for (const std::uint8_t byte : examples) {
      dfa->next_.push_back(row.next[byte]);
      if (counted_) dfa->weights_.push_back(row.weight[byte]);
      is_final = is_final && row.next[byte] == Dfa::kDead;
    }
    dfa->final_.push_back(is_final);
  }
  dfa->accepting_ = accepting_;
  if (!useful[Dfa::kStart]) dfa->accepting_.resize(Dfa::kStart);
  return dfa;
}

DfaPtr dfa_of(const Expression& expression) {
  const Nfa nfa(expression);
  return Determinizer(nfa).run();
}

DfaPtr intersection(const Dfa& a, const Dfa& b) {
  return product(a, b, true);
}

DfaPtr difference(const Dfa& a, const Dfa& b) {
  return product(a, b, false);
}

DfaPtr dfa_of_texts(std::span<const std::string> texts) {
  DfaBuilder builder;
  for (const std::string& text : texts) {
    Dfa::State state = Dfa::kStart;
    for (const char c : text) {
      const auto byte = static_cast<std::uint8_t>(c);
      Dfa::State next = builder.target(state, byte);
      if (next == Dfa::kDead) {
        next = builder.add_state();
        builder.add(state, byte, byte, next);
      }
      state = next;
    }
    builder.set_accepting(state);
  }
  return builder.build();
}

}  // namespace ds4::grammar
