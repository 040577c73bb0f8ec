#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "grammar/expression.h"

namespace ds4::grammar {

// A deterministic automaton over bytes: a terminal of a grammar.  From every state but kDead some
// text leads to acceptance.  Immutable: may be used from several threads.
class Dfa {
 public:
  using State = std::uint16_t;
  static constexpr State kDead = 0;
  static constexpr State kStart = 1;

  State next(State state, std::uint8_t byte) const { return next_[cell(state, byte)]; }
  bool accepts(State state) const { return accepting_[state]; }
  // Whether no byte leads on.
  bool is_final(State state) const { return final_[state]; }
  // Characters of a counted value that this step adds: 0 or 1.
  std::uint32_t weight(State state, std::uint8_t byte) const {
    return weights_.empty() ? 0 : weights_[cell(state, byte)];
  }
  bool is_counted() const { return !weights_.empty(); }
  std::size_t state_count() const { return accepting_.size(); }
  bool accepts_nothing() const { return accepting_.size() <= kStart; }

 private:
  friend class DfaBuilder;
  std::size_t cell(State state, std::uint8_t byte) const {
    return std::size_t{state} * class_count_ + class_of_[byte];
  }

  std::array<std::uint8_t, 256> class_of_{};  // bytes that no state tells apart share a class
  std::size_t class_count_ = 1;
  std::vector<State> next_;            // [state, class]
  std::vector<std::uint8_t> weights_;  // [state, class], or empty
  std::vector<bool> accepting_;        // [state]
  std::vector<bool> final_;            // [state]
};

using DfaPtr = std::shared_ptr<const Dfa>;

// Makes a Dfa state by state.  Throws Error(kInvalidArgument) beyond kStatesMax.
class DfaBuilder {
 public:
  static constexpr std::size_t kStatesMax = 16384;

  DfaBuilder();
  // The state kStart is there already.
  Dfa::State add_state(bool accepting = false);
  void set_accepting(Dfa::State state) { accepting_[state] = true; }
  void add(Dfa::State from,
           std::uint8_t first,
           std::uint8_t last,
           Dfa::State to,
           std::uint8_t weight = 0);
  Dfa::State target(Dfa::State from, std::uint8_t byte) const { return rows_[from].next[byte]; }
  // Drops what cannot end in acceptance.
  DfaPtr build();

 private:
  struct Row {
    std::array<Dfa::State, 256> next{};
    std::array<std::uint8_t, 256> weight{};
  };
  std::vector<bool> useful_states() const;

  std::vector<Row> rows_;
  std::vector<bool> accepting_;
  bool counted_ = false;
};

// The texts that `expression` matches.  Throws Error(kInvalidArgument) when that takes too many
// states.
DfaPtr dfa_of(const Expression& expression);
// Exactly these texts.
DfaPtr dfa_of_texts(std::span<const std::string> texts);
// The texts that both have; those that `a` has and `b` has not.  Throws as dfa_of().
DfaPtr intersection(const Dfa& a, const Dfa& b);
DfaPtr difference(const Dfa& a, const Dfa& b);

}  // namespace ds4::grammar
