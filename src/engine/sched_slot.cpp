#include "engine/sched_slot.h"

#include <algorithm>

#include "engine/prompt_key.h"

namespace ds4 {

namespace {

// Room for the key of a token, so that a decode step seldom grows the string.
constexpr std::size_t kKeyBytesPerToken = 6;

}  // namespace

const char* reuse_source_name(ReuseSource source) {
  switch (source) {
    case ReuseSource::kCold:
      return "cold";
    case ReuseSource::kTokens:
      return "memory-token";
    case ReuseSource::kText:
      return "memory-text";
    case ReuseSource::kVisible:
      return "memory-visible";
    case ReuseSource::kRewind:
      return "memory-rewind";
    case ReuseSource::kFork:
      return "memory-fork";
    case ReuseSource::kDisk:
      return "disk";
  }
  return "unknown";
}

Slot::Slot(Engine& engine, const SessionOptions& options)
    : engine_(engine),
      session_(engine, options) {
  transcript_.reserve(options.context + 1);
  key_ends_.reserve(options.context + 1);
  key_.reserve(std::size_t{options.context} * kKeyBytesPerToken);
}

SlotMatch Slot::match(const PromptView& prompt) const {
  SlotMatch match;
  if (empty() || prompt.name_space != name_space_) return match;
  const std::size_t common = common_prefix_bytes(key_, prompt.key);
  match.first_difference = common;
  const auto tokens_end = std::mismatch(transcript_.begin(), transcript_.end(),
                                        prompt.tokens.begin(), prompt.tokens.end())
                              .first;
  const auto shared = static_cast<std::uint32_t>(tokens_end - transcript_.begin());
  if (shared == transcript_.size() && shared < prompt.tokens.size()) {
    match.source = ReuseSource::kTokens;
    match.kept_tokens = shared;
    match.by_tokens = true;
    return match;
  }
  if (common == key_.size() && common < prompt.key.size()) {
    match.source = ReuseSource::kText;
    match.kept_tokens = live_tokens();
    match.prompt_offset = common;
    return match;
  }
  for (const VisibleTurn& turn : visible_) {
    if (turn.key.size() >= prompt.key.size() || !prompt.key.starts_with(turn.key)) continue;
    match.source = ReuseSource::kVisible;
    match.kept_tokens = live_tokens();
    match.prompt_offset = turn.key.size();
    match.bridge = turn.bridge;
    return match;
  }
  match.source = ReuseSource::kRewind;
  match.kept_tokens = std::min(shared, static_cast<std::uint32_t>(prompt.tokens.size() - 1));
  match.by_tokens = true;
  // Markers are boundaries that no token crosses: up to one of them the live tokens may stand for
  // the prompt's bytes although they were cut differently.
  const auto last =
      std::upper_bound(key_ends_.begin(), key_ends_.end(), static_cast<std::uint32_t>(common));
  auto index = static_cast<std::uint32_t>(last - key_ends_.begin());
  while (index > match.kept_tokens && !engine_.tokenizer().is_marker(transcript_[index - 1]))
    --index;
  if (index > match.kept_tokens && key_ends_[index - 1] < prompt.key.size()) {
    match.kept_tokens = index;
    match.prompt_offset = key_ends_[index - 1];
    match.by_tokens = false;
  }
  if (match.kept_tokens == 0) match.source = ReuseSource::kCold;
  return match;
}

bool Slot::is_same_conversation(std::uint32_t kept) const {
  // The same prompt again keeps all of it but the last token.
  return !turn_ends_.empty() && kept + 1 >= turn_ends_.front();
}

std::vector<TokenId> Slot::begin(const PromptView& prompt, const SlotMatch& match) {
  std::vector<TokenId> whole(transcript_.begin(), transcript_.begin() + match.kept_tokens);
  if (match.by_tokens || match.kept_tokens == 0) {
    whole.insert(whole.end(), prompt.tokens.begin() + match.kept_tokens, prompt.tokens.end());
  } else {
    whole.insert(whole.end(), match.bridge.begin(), match.bridge.end());
    const std::vector<TokenId> rest =
        encode_rest(engine_.tokenizer(), prompt.prompt, match.prompt_offset);
    whole.insert(whole.end(), rest.begin(), rest.end());
  }
  const std::uint32_t keep = std::min(
      {match.kept_tokens, session_.length(), static_cast<std::uint32_t>(whole.size() - 1)});
  session_.cut_back(keep);
  name_space_ = prompt.name_space;
  visible_.clear();
  while (!turn_ends_.empty() && turn_ends_.back() > match.kept_tokens)
    turn_ends_.pop_back();
  set_transcript(whole);
  turn_ends_.push_back(live_tokens());
  return whole;
}

std::uint32_t Slot::fork(Slot& from, std::uint32_t length) {
  const Checkpoints& checkpoints = from.session_.checkpoints();
  const std::vector<std::uint32_t> lengths = checkpoints.lengths();
  const auto beyond = std::upper_bound(lengths.begin(), lengths.end(), length);
  if (beyond == lengths.begin()) return 0;
  const std::uint32_t end = *(beyond - 1);
  const std::vector<std::byte>* frontier = checkpoints.find(end);
  Executor& executor = engine_.executor();
  clear();
  executor.begin_restore(session_.sequence(), end);
  std::vector<std::byte> buffer;
  for (const StateSection& section : executor.layout().appended_sections(0, end)) {
    buffer.resize(section.bytes());
    executor.read_state(from.session_.sequence(), section, buffer);
    executor.write_state(session_.sequence(), section, buffer);
  }
  std::size_t offset = 0;
  for (const StateSection& section : executor.layout().frontier_sections(end)) {
    executor.write_state(session_.sequence(), section,
                         std::span(*frontier).subspan(offset, section.bytes()));
    offset += section.bytes();
  }
  session_.adopt(from.session_.tokens().first(end), {});
  adopt(from.name_space_);
  return end;
}

void Slot::adopt(std::string_view name_space) {
  name_space_ = name_space;
  visible_.clear();
  turn_ends_.clear();
  const std::vector<TokenId> tokens(session_.tokens().begin(), session_.tokens().end());
  set_transcript(tokens);
}

void Slot::clear() {
  session_.clear();
  transcript_.clear();
  key_.clear();
  key_ends_.clear();
  turn_ends_.clear();
  visible_.clear();
  name_space_.clear();
}

void Slot::push(TokenId token) {
  transcript_.push_back(token);
  append_token_key(key_, engine_.tokenizer(), token);
  key_ends_.push_back(static_cast<std::uint32_t>(key_.size()));
}

void Slot::pop() {
  DS4_CHECK(session_.length() < transcript_.size());
  truncate_record(live_tokens() - 1);
}

void Slot::truncate_record(std::uint32_t length) {
  transcript_.resize(length);
  key_ends_.resize(length);
  key_.resize(length == 0 ? 0 : key_ends_.back());
}

void Slot::set_transcript(std::span<const TokenId> tokens) {
  const auto same =
      std::mismatch(transcript_.begin(), transcript_.end(), tokens.begin(), tokens.end()).first;
  truncate_record(static_cast<std::uint32_t>(same - transcript_.begin()));
  for (const TokenId token : tokens.subspan(transcript_.size()))
    push(token);
}

}  // namespace ds4
