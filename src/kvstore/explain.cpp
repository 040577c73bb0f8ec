#include <algorithm>

#include "base/error.h"
#include "kvstore/lookup.h"
#include "kvstore/store.h"
#include "kvstore/store_context.h"

namespace ds4::kvstore {

namespace {

constexpr std::size_t kShownBytes = 40;  // on either side of a difference

}  // namespace

std::string_view miss_reason_name(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kNothing:
      return "nothing-saved";
    case MissReason::kDiffers:
      return "differs";
    case MissReason::kNoState:
      return "no-state-there";
    case MissReason::kReadOnly:
      return "read-only";
  }
  return "unknown";
}

Difference Store::explain(const Agreement& agreement,
                          std::span<const std::byte> text,
                          std::uint64_t state_tokens) {
  Difference difference{.offset = agreement.byte_count};
  const std::span<const std::byte> rest =
      text.subspan(std::min<std::uint64_t>(agreement.byte_count, text.size()));
  std::size_t most = 0;
  bool any = false;
  bool differs = false;  // the closest one, before either ends
  for (const EntryRow& row : agreement.candidates) {
    try {
      const EntryReader entry(path_of(row), context_->cipher_or_null());
      const std::vector<std::byte> own = entry.section(1);
      const auto end = std::mismatch(own.begin(), own.end(), rest.begin(), rest.end());
      const auto common = static_cast<std::size_t>(end.first - own.begin());
      if (any && common <= most) continue;
      most = common;
      any = true;
      differs = common < own.size() && common < rest.size();
      const std::size_t from = common - std::min(common, kShownBytes);
      const std::size_t to = std::min(own.size(), common + kShownBytes);
      difference.saved.assign(reinterpret_cast<const char*>(own.data()) + from, to - from);
    } catch (const Error&) {
      // Gone or damaged: a load says so when it comes to it.
    }
  }
  difference.offset += most;
  // Agreeing bytes beyond the state: the end of a chunk without one, or part of an entry.
  if (!any && agreement.token_count == 0)
    difference.reason = context_->read_only ? MissReason::kReadOnly : MissReason::kNothing;
  else if (differs)
    difference.reason = MissReason::kDiffers;
  else if (agreement.token_count > state_tokens || most > 0)
    difference.reason = MissReason::kNoState;
  return difference;
}

}  // namespace ds4::kvstore
