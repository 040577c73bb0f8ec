#pragma once
#include <string_view>

namespace ds4::tokenizer {

// The literal names of the protocol's marker tokens.  Their ids are a matter of the vocabulary and
// are always looked up.
inline constexpr std::string_view kBosMarker = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEosMarker = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kPadMarker = "<｜▁pad▁｜>";
inline constexpr std::string_view kUserMarker = "<｜User｜>";
inline constexpr std::string_view kAssistantMarker = "<｜Assistant｜>";
inline constexpr std::string_view kThinkMarker = "<think>";
inline constexpr std::string_view kThinkEndMarker = "</think>";
inline constexpr std::string_view kDsmlMarker = "｜DSML｜";
inline constexpr std::string_view kLatestReminderMarker = "<｜latest_reminder｜>";
inline constexpr std::string_view kActionMarker = "<｜action｜>";
inline constexpr std::string_view kQueryMarker = "<｜query｜>";
inline constexpr std::string_view kAuthorityMarker = "<｜authority｜>";
inline constexpr std::string_view kDomainMarker = "<｜domain｜>";
inline constexpr std::string_view kTitleMarker = "<｜title｜>";
inline constexpr std::string_view kReadUrlMarker = "<｜read_url｜>";

}  // namespace ds4::tokenizer
