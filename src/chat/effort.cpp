#include "chat/effort.h"

namespace ds4::chat {
namespace {

// Protocol constants of the official encoder (MIT), one a release step.
constexpr std::string_view kAbsoluteMaximum =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";

constexpr std::string_view kBeyondMaximum =
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
    "exhaustively decompose the problem into its most fundamental components, trace every causal "
    "chain to its root, and resolve the underlying cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles "
    "and are certain that no assumption remains unchecked and no error remains undiscovered.\n\n";

}  // namespace

std::string_view effort_prefix(ThinkMode mode, EffortLadder ladder) {
  const bool is_first = ladder == EffortLadder::kApril2026;
  switch (mode) {
    case ThinkMode::kNone:
    case ThinkMode::kLow:
      return {};
    case ThinkMode::kHigh:
      return is_first ? std::string_view() : kAbsoluteMaximum;
    case ThinkMode::kMax:
      return is_first ? kAbsoluteMaximum : kBeyondMaximum;
  }
  return {};
}

std::string_view think_mode_name(ThinkMode mode) {
  switch (mode) {
    case ThinkMode::kNone:
      return "none";
    case ThinkMode::kLow:
      return "low";
    case ThinkMode::kHigh:
      return "high";
    case ThinkMode::kMax:
      return "max";
  }
  return "";
}

std::optional<ThinkMode> find_think_mode(std::string_view effort) {
  if (effort == "none") return ThinkMode::kNone;
  if (effort == "minimal" || effort == "low") return ThinkMode::kLow;
  if (effort == "medium" || effort == "high" || effort == "xhigh") return ThinkMode::kHigh;
  if (effort == "max") return ThinkMode::kMax;
  return std::nullopt;
}

ThinkMode fitting_think_mode(ThinkMode mode, std::uint64_t context_tokens) {
  const bool is_too_small = context_tokens < kMaxEffortContextTokens;
  return mode == ThinkMode::kMax && is_too_small ? ThinkMode::kHigh : mode;
}

}  // namespace ds4::chat
