#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace ds4::chat {

// How much the model is asked to think.
enum class ThinkMode {
  kNone,  // the prompt closes the reasoning before it begins
  kLow,   // thinking without a prefix
  kHigh,  // the default
  kMax,
};

// Which release's meaning the modes have: the second one moved each text down by a step.
enum class EffortLadder {
  kApril2026,  // low and high: no prefix; max: "Absolute maximum"
  k0731,       // low: no prefix; high: "Absolute maximum"; max: "Beyond maximum"
};

constexpr bool is_thinking(ThinkMode mode) {
  return mode != ThinkMode::kNone;
}

// The text that stands right behind BOS; empty for most modes.
std::string_view effort_prefix(ThinkMode mode, EffortLadder ladder);

std::string_view think_mode_name(ThinkMode mode);

// From the effort names that clients use: none, minimal, low, medium, high, xhigh, max.  Nothing
// for any other name.
std::optional<ThinkMode> find_think_mode(std::string_view effort);

// A context below this is too small for ThinkMode::kMax.
inline constexpr std::uint64_t kMaxEffortContextTokens = 393216;
// `mode`, but kHigh for kMax in a context that is too small for it; callers tell the user.
ThinkMode fitting_think_mode(ThinkMode mode, std::uint64_t context_tokens);

}  // namespace ds4::chat
