#include "kvstore/state_snapshot.h"

#include <cstring>
#include <utility>

#include "base/error.h"

namespace ds4::kvstore {

StateSnapshot::StateSnapshot(const StateLayout& layout,
                             StateSource& live,
                             const SaveNeeds& needs,
                             std::uint64_t token_count,
                             std::vector<std::byte> storage)
    : layout_(layout),
      token_begin_(needs.token_begin),
      token_count_(needs.nothing ? needs.token_begin : token_count),
      storage_(std::move(storage)) {
  std::size_t bytes = 0;
  for (const RowArray& array : layout_.rows) {
    row_offsets_.push_back(bytes);
    bytes += (row_count(array, token_count_) - row_count(array, token_begin_)) * array.row_bytes;
  }
  for (const std::uint64_t length : needs.carry_lengths) {
    Carry& carry = carries_.emplace_back();
    carry.token_count = length;
    carry.has_logits = live.has_logits(length);
    carry.offset = bytes;
    bytes += carry_bytes(layout_, length, place_of(carry));
  }
  storage_.resize(bytes);
  const std::span<std::byte> all(storage_);
  for (std::size_t i = 0; i < layout_.rows.size(); ++i) {
    const RowArray& array = layout_.rows[i];
    const std::uint64_t first = row_count(array, token_begin_);
    const std::uint64_t rows = row_count(array, token_count_) - first;
    if (rows > 0) live.read_rows(i, first, all.subspan(row_offsets_[i], rows * array.row_bytes));
  }
  for (const Carry& carry : carries_) {
    std::size_t offset = carry.offset;
    for (std::size_t i = 0; i < layout_.carries.size(); ++i) {
      const CarryArray& array = layout_.carries[i];
      if (array.place == CarryPlace::kTailOnly && !carry.has_logits) continue;
      const std::size_t size = row_count(array, carry.token_count) * array.row_bytes;
      if (size > 0) live.read_carry(i, carry.token_count, all.subspan(offset, size));
      offset += size;
    }
  }
}

const StateSnapshot::Carry* StateSnapshot::find(std::uint64_t token_count) const {
  for (const Carry& carry : carries_)
    if (carry.token_count == token_count) return &carry;
  return nullptr;
}

void StateSnapshot::read_rows(std::size_t array_index,
                              std::uint64_t row_begin,
                              std::span<std::byte> out) {
  const RowArray& array = layout_.rows[array_index];
  const std::uint64_t first = row_count(array, token_begin_);
  const std::uint64_t end = row_count(array, token_count_);
  if (row_begin < first || row_begin * array.row_bytes + out.size() > end * array.row_bytes) {
    throw Error(ErrorCode::kNotFound,
                "an entry that was there when the state was copied is gone by now");
  }
  std::memcpy(out.data(),
              storage_.data() + row_offsets_[array_index] + (row_begin - first) * array.row_bytes,
              out.size());
}

bool StateSnapshot::has_carry(std::uint64_t token_count) const {
  return find(token_count) != nullptr;
}

bool StateSnapshot::has_logits(std::uint64_t token_count) const {
  const Carry* carry = find(token_count);
  return carry != nullptr && carry->has_logits;
}

void StateSnapshot::read_carry(std::size_t array_index,
                               std::uint64_t token_count,
                               std::span<std::byte> out) {
  const Carry* carry = find(token_count);
  DS4_CHECK(carry != nullptr);
  std::size_t offset = carry->offset;
  for (std::size_t i = 0; i < array_index; ++i) {
    const CarryArray& array = layout_.carries[i];
    if (array.place == CarryPlace::kTailOnly && !carry->has_logits) continue;
    offset += row_count(array, token_count) * array.row_bytes;
  }
  std::memcpy(out.data(), storage_.data() + offset, out.size());
}

}  // namespace ds4::kvstore
