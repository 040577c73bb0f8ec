#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "kvstore/entry_batch.h"
#include "kvstore/store.h"
#include "kvstore/store_context.h"

namespace ds4::kvstore {

namespace {

// One entry of the chain to be saved.
struct Piece {
  EntryKind kind = EntryKind::kChunk;
  EntryId id;
  EntryId parent;
  Sha256Digest key{};
  std::uint64_t token_begin = 0;
  std::uint64_t token_end = 0;
  std::uint64_t byte_begin = 0;
  std::uint64_t byte_end = 0;
  bool has_state = false;
  bool has_logits = false;
  bool has_aliases = false;
  bool present = false;
};

class Saver {
 public:
  Saver(StoreContext& context, const SaveRequest& request, StateSource& source)
      : context_(context),
        request_(request),
        layout_(request.space.model().layout),
        source_(source),
        batch_(context) {}

  // What is not in `catalogue` and would be read from the source.
  SaveNeeds needs(Catalogue& catalogue) {
    plan();
    SaveNeeds needs;
    for (const Piece& piece : pieces_) {
      if (catalogue.contains(piece.id)) continue;
      if (needs.nothing) needs.token_begin = piece.token_begin;
      needs.nothing = false;
      if (piece.has_state) needs.carry_lengths.push_back(piece.token_end);
    }
    return needs;
  }

  SaveOutcome run() {
    plan();
    if (!admit()) return outcome_;
    for (const Piece& piece : pieces_)
      if (!piece.present) write(piece);
    batch_.publish();
    outcome_.bytes_written = batch_.bytes_written();
    if (!pieces_.empty() && pieces_.back().kind == EntryKind::kTail) {
      outcome_.tail = pieces_.back().id;
      if (pieces_.back().present) touch(pieces_.back().id);
      if (request_.replaces && *request_.replaces != *outcome_.tail) remove_replaced();
    }
    return outcome_;
  }

 private:
  bool has_tail_only_arrays() const;
  void add_piece(EntryKind kind, KeyChain& chain, std::uint64_t token_end);
  bool admit();
  void find_present();
  bool fits_day(std::uint64_t bytes);
  void plan();
  void make_aliases();
  std::uint64_t file_bytes(const Piece& piece) const;
  std::vector<Section> sections_of(const Piece& piece) const;
  void fill(EntryEncoder& encoder, const Piece& piece);
  void write(const Piece& piece);
  void touch(const EntryId& id);
  void remove_replaced();

  StoreContext& context_;
  const SaveRequest& request_;
  const StateLayout& layout_;
  StateSource& source_;
  std::vector<Piece> pieces_;
  EntryBatch batch_;
  std::vector<std::byte> storage_;
  std::vector<AliasRecord> aliases_;  // of the tail
  SaveOutcome outcome_;
};

void Saver::add_piece(EntryKind kind, KeyChain& chain, std::uint64_t token_end) {
  Piece piece;
  piece.kind = kind;
  if (!pieces_.empty()) {
    piece.token_begin = pieces_.back().token_end;
    piece.byte_begin = pieces_.back().byte_end;
    piece.parent = pieces_.back().id;
  } else {
    piece.parent = request_.space.root();
  }
  piece.token_end = token_end;
  const auto token_bytes =
      request_.token_bytes.subspan(piece.token_begin, token_end - piece.token_begin);
  piece.byte_end = std::accumulate(token_bytes.begin(), token_bytes.end(), piece.byte_begin);
  DS4_CHECK(piece.byte_end <= request_.text.size());
  chain.append(request_.text.subspan(piece.byte_begin, piece.byte_end - piece.byte_begin));
  piece.key = chain.key();
  const auto tokens = request_.tokens.subspan(piece.token_begin, token_end - piece.token_begin);
  piece.id = entry_id(kind, piece.parent, piece.key, tokens);
  pieces_.push_back(piece);
}

bool Saver::has_tail_only_arrays() const {
  return std::any_of(layout_.carries.begin(), layout_.carries.end(),
                     [](const CarryArray& array) { return array.place == CarryPlace::kTailOnly; });
}

void Saver::plan() {
  DS4_CHECK(request_.tokens.size() == request_.token_bytes.size());
  const std::uint32_t chunk_tokens = context_.options.chunk_tokens;
  const std::uint64_t stride = std::uint64_t{chunk_tokens} * context_.options.state_stride_chunks;
  const std::uint64_t token_count = request_.tokens.size();
  KeyChain chain(request_.space.context());
  for (std::uint64_t end = chunk_tokens; end <= token_count; end += chunk_tokens) {
    add_piece(EntryKind::kChunk, chain, end);
    pieces_.back().has_state = end % stride == 0 && source_.has_carry(end);
  }
  if (request_.extent == SaveExtent::kChunks || token_count == 0) return;
  if (!source_.has_carry(token_count)) return;
  add_piece(EntryKind::kTail, chain, token_count);
  pieces_.back().has_state = true;
  pieces_.back().has_logits = has_tail_only_arrays() && source_.has_logits(token_count);
  DS4_CHECK(pieces_.back().byte_end == request_.text.size());
  make_aliases();
}

void Saver::make_aliases() {
  for (const TailAlias& alias : request_.aliases) {
    if (aliases_.size() == kAliasesMax || alias.bridge.size() > kBridgeTokensMax) continue;
    const auto text = std::as_bytes(std::span(alias.text));
    KeyChain chain(request_.space.context());
    chain.append(text);
    aliases_.push_back({.key = chain.key(),
                        .byte_end = text.size(),
                        .text_check = text_check(request_.space.context().salt, text),
                        .bridge = {alias.bridge.begin(), alias.bridge.end()}});
  }
  pieces_.back().has_aliases = !aliases_.empty();
}

// Marks what is there and keeps it there: whatever has no successor yet could be evicted.
void Saver::find_present() {
  const std::lock_guard lock(context_.catalogue_mutex);
  Transaction transaction(context_.catalogue->database());
  for (Piece& piece : pieces_)
    piece.present = context_.catalogue->contains(piece.id);
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    if (!pieces_[i].present || (i + 1 < pieces_.size() && pieces_[i + 1].present)) continue;
    batch_.hold(pieces_[i].id);
  }
  transaction.commit();
}

bool Saver::fits_day(std::uint64_t bytes) {
  const std::uint64_t limit = context_.options.bytes_written_per_day_max;
  if (limit == 0 || request_.urgency == SaveUrgency::kAsked) return true;
  const std::lock_guard lock(context_.catalogue_mutex);
  return context_.catalogue->written_bytes(context_.today()) + bytes <= limit;
}

bool Saver::admit() {
  find_present();
  std::uint64_t new_bytes = 0;
  std::uint64_t chain_bytes = 0;
  for (const Piece& piece : pieces_) {
    const std::uint64_t bytes = file_bytes(piece);
    chain_bytes += bytes;
    if (!piece.present) new_bytes += bytes;
    if (piece.present && piece.kind == EntryKind::kChunk) ++outcome_.chunks_reused;
  }
  if (new_bytes == 0) return true;
  if (!fits_day(new_bytes)) {
    outcome_.status = SaveStatus::kSkippedOverDayLimit;
    context_.say(LogLevel::kInfo,
                 fmt::format("kv: {} bytes not saved: the limit of {} bytes "
                             "written a day is reached",
                             new_bytes, context_.options.bytes_written_per_day_max));
    return false;
  }
  const std::uint64_t limit = context_.options.bytes_max;
  if ((limit == 0 || chain_bytes <= limit) && context_.make_room(new_bytes)) return true;
  outcome_.status = SaveStatus::kSkippedOverBudget;
  context_.say(LogLevel::kWarning,
               fmt::format("kv: {} tokens not saved: they take {} bytes and the budget of {} bytes "
                           "has no room for them; raise the budget",
                           request_.tokens.size(), chain_bytes, limit));
  return false;
}

std::vector<Section> Saver::sections_of(const Piece& piece) const {
  std::vector<Section> sections;
  sections.push_back({.kind = kSectionTokens,
                      .row_bytes = sizeof(TokenId),
                      .bytes = (piece.token_end - piece.token_begin) * sizeof(TokenId)});
  sections.push_back(
      {.kind = kSectionText, .row_bytes = 1, .bytes = piece.byte_end - piece.byte_begin});
  for (const RowArray& array : layout_.rows) {
    const std::uint64_t first = row_count(array, piece.token_begin);
    sections.push_back({.kind = static_cast<std::uint16_t>(array.kind),
                        .layer = array.layer,
                        .row_begin = first,
                        .row_bytes = array.row_bytes,
                        .bytes = (row_count(array, piece.token_end) - first) * array.row_bytes});
  }
  if (!piece.has_state) return sections;
  for (const CarryArray& array : layout_.carries) {
    if (array.place == CarryPlace::kTailOnly && !piece.has_logits) continue;
    sections.push_back({.kind = static_cast<std::uint16_t>(array.kind),
                        .layer = array.layer,
                        .row_begin = 0,
                        .row_bytes = array.row_bytes,
                        .bytes = row_count(array, piece.token_end) * array.row_bytes});
  }
  if (piece.has_aliases)
    sections.push_back(
        {.kind = kSectionAliases, .row_bytes = 1, .bytes = encode_aliases(aliases_).size()});
  return sections;
}

std::uint64_t Saver::file_bytes(const Piece& piece) const {
  std::uint64_t bytes = kEntryHeaderBytes;
  for (const Section& section : sections_of(piece))
    bytes += kSectionRecordBytes + section.bytes + (context_.cipher ? kCipherTagBytes : 0);
  return bytes;
}

void Saver::fill(EntryEncoder& encoder, const Piece& piece) {
  const auto copy = [&](std::size_t index, std::span<const std::byte> bytes) {
    std::copy(bytes.begin(), bytes.end(), encoder.section(index).begin());
  };
  copy(0, std::as_bytes(
              request_.tokens.subspan(piece.token_begin, piece.token_end - piece.token_begin)));
  copy(1, request_.text.subspan(piece.byte_begin, piece.byte_end - piece.byte_begin));
  std::size_t index = 2;
  for (std::size_t array = 0; array < layout_.rows.size(); ++array, ++index) {
    const std::span<std::byte> out = encoder.section(index);
    if (!out.empty())
      source_.read_rows(array, row_count(layout_.rows[array], piece.token_begin), out);
  }
  if (!piece.has_state) return;
  for (std::size_t array = 0; array < layout_.carries.size(); ++array) {
    const bool tail_only = layout_.carries[array].place == CarryPlace::kTailOnly;
    if (tail_only && !piece.has_logits) continue;
    const std::span<std::byte> out = encoder.section(index++);
    if (!out.empty()) source_.read_carry(array, piece.token_end, out);
  }
  if (piece.has_aliases) copy(index, encode_aliases(aliases_));
}

void Saver::write(const Piece& piece) {
  const KeySpace& space = request_.space;
  const auto own_tokens = static_cast<double>(piece.token_end - piece.token_begin);
  EntryHeader header;
  header.kind = piece.kind;
  header.role = request_.role;
  header.has_state = piece.has_state;
  header.has_logits = piece.has_logits;
  header.has_aliases = piece.has_aliases;
  header.token_begin = piece.token_begin;
  header.token_end = piece.token_end;
  header.byte_begin = piece.byte_begin;
  header.byte_end = piece.byte_end;
  header.created_s = context_.now_s();
  header.recompute_us = static_cast<std::uint64_t>(
      std::clamp(own_tokens * request_.prefill_ms_per_token * 1000.0, 0.0, 1e12));
  header.text_check =
      text_check(space.context().salt,
                 request_.text.subspan(piece.byte_begin, piece.byte_end - piece.byte_begin));
  header.chunk_tokens = context_.options.chunk_tokens;
  header.layout_version = layout_.version;
  header.fingerprint = space.context().fingerprint;
  header.layout_digest = space.context().layout_digest;
  header.parent = piece.parent;
  header.key = piece.key;
  header.id = piece.id;
  if (context_.cipher) fill_random(header.salt);
  header.codec = layout_.codec;
  header.name_space = space.context().name_space;
  header.model = space.model().name;
  EntryEncoder encoder(std::move(header), sections_of(piece), context_.cipher_or_null(), storage_);
  fill(encoder, piece);
  const std::span<const std::byte> bytes = encoder.finish();
  batch_.add(
      encoder.header(), bytes,
      piece.has_aliases ? std::span<const AliasRecord>(aliases_) : std::span<const AliasRecord>());
  if (piece.kind == EntryKind::kChunk) ++outcome_.chunks_written;
}

void Saver::touch(const EntryId& id) {
  const std::lock_guard lock(context_.catalogue_mutex);
  context_.catalogue->mark_used(std::span(&id, 1), context_.now_s(), context_.options.half_life_s);
}

// The new tail is safe by now: that the old one stays is no reason to fail.
void Saver::remove_replaced() {
  const std::lock_guard lock(context_.catalogue_mutex);
  try {
    context_.remove_tail(*request_.replaces);
  } catch (const Error& error) {
    context_.say(LogLevel::kWarning, fmt::format("kv: an old tail stays: {}", error.what()));
  }
}

}  // namespace

SaveOutcome Store::save(const SaveRequest& request, StateSource& source) {
  context_->require_writable();
  context_->require_key();
  DS4_CHECK(request.space.context().chunk_tokens == context_->options.chunk_tokens);
  const std::lock_guard lock(context_->save_mutex);
  return Saver(*context_, request, source).run();
}

SaveNeeds Store::needs(const SaveRequest& request, StateSource& source) {
  const std::lock_guard lock(context_->reader_mutex);
  return Saver(*context_, request, source).needs(*context_->reader);
}

}  // namespace ds4::kvstore
