#include <exception>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/bounded_queue.h"
#include "base/error.h"
#include "kvstore/store.h"
#include "kvstore/store_context.h"

namespace ds4::kvstore {

namespace {

constexpr std::size_t kFilesAhead = 3;

// One file of the chain as it came from the disk, not yet checked.
struct Loaded {
  std::optional<EntryReader> reader;
  std::size_t section_count = 0;
  std::vector<std::byte> stored;
  std::uint64_t file_number = 0;  // taken before the file was opened
  std::exception_ptr failure;
};

// Reads the files of a chain ahead of their use, on a thread of its own.
class ReadAhead {
 public:
  ReadAhead(const StoreContext& context, const Hit& hit, std::size_t row_sections)
      : context_(context),
        hit_(hit),
        row_sections_(row_sections),
        ready_(kFilesAhead),
        spare_(kFilesAhead + 1),
        thread_([this](std::stop_token stop) { work(stop); }) {}
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead() {
    thread_.request_stop();
    ready_.close();
  }

  // The next file of the chain.
  Loaded next() {
    std::optional<Loaded> loaded = ready_.pop();
    DS4_CHECK(loaded.has_value());
    return std::move(*loaded);
  }
  // Gives a buffer back to be read into again.
  void recycle(std::vector<std::byte> storage) { spare_.try_push(storage); }

 private:
  void work(const std::stop_token& stop) {
    for (std::size_t i = 0; i < hit_.chain.size() && !stop.stop_requested(); ++i) {
      // The disk starts on the next file while this one is copied.
      if (i + 1 < hit_.chain.size()) prefetch_file(path_of(i + 1));
      Loaded loaded;
      if (auto storage = spare_.try_pop()) loaded.stored = std::move(*storage);
      const bool last = i + 1 == hit_.chain.size();
      try {
        read(loaded, i, last);
      } catch (...) {
        loaded.failure = std::current_exception();
      }
      const bool failed = loaded.failure != nullptr;
      if (!ready_.push(std::move(loaded), stop) || failed) return;
    }
  }

  std::filesystem::path path_of(std::size_t index) const {
    const bool last = index + 1 == hit_.chain.size();
    return context_.path_of(last ? hit_.kind : EntryKind::kChunk, hit_.chain[index]);
  }

  void read(Loaded& loaded, std::size_t index, bool last) const {
    const std::filesystem::path path = path_of(index);
    loaded.file_number = file_number(path);
    loaded.reader.emplace(path, context_.cipher_or_null());
    const std::size_t all = loaded.reader->info().sections.size();
    loaded.section_count = last ? all : std::min(all, row_sections_);
    loaded.reader->read_sections(0, loaded.section_count, loaded.stored);
  }

  const StoreContext& context_;
  const Hit& hit_;
  const std::size_t row_sections_;
  BoundedQueue<Loaded> ready_;
  BoundedQueue<std::vector<std::byte>> spare_;
  std::jthread thread_;  // last: it uses all of the above
};

// Something is wrong with the file of one entry of the chain.
struct DamagedEntry {
  std::size_t index;
  std::uint64_t file_number;
  ErrorCode code;
  std::string reason;
};

class Restorer {
 public:
  Restorer(StoreContext& context, const KeySpace& space, const Hit& hit, StateSink& sink)
      : context_(context),
        space_(space),
        layout_(space.model().layout),
        hit_(hit),
        sink_(sink),
        keys_(space.context()),
        parent_(space.root()) {}

  Restored run() {
    sink_.begin(hit_.token_count);
    ReadAhead ahead(context_, hit_, 2 + layout_.rows.size());
    for (std::size_t index = 0; index < hit_.chain.size(); ++index) {
      Loaded loaded = ahead.next();
      take(index, loaded);
      result_.bytes_read += loaded.stored.size();
      ahead.recycle(std::move(loaded.stored));
    }
    result_.byte_count = byte_end_;
    return std::move(result_);
  }

 private:
  // Runs a check of entry `index` and says which entry it was that failed.
  template <class Check>
  auto checked(std::size_t index, const Check& check) {
    try {
      return check();
    } catch (const Error& error) {
      const bool ours = error.code() == ErrorCode::kInvalidArgument;  // the wrong key
      if (ours) throw;
      throw DamagedEntry{index, file_number_, error.code(), error.what()};
    }
  }

  static void require(bool condition, std::string_view what) {
    if (!condition) throw Error(ErrorCode::kBadFormat, fmt::format("kv entry: {}", what));
  }

  void take(std::size_t index, Loaded& loaded) {
    file_number_ = loaded.file_number;
    checked(index, [&] {
      if (loaded.failure) std::rethrow_exception(loaded.failure);
      check_header(index, loaded.reader->header());
      check_sections(loaded.reader->info(), index + 1 == hit_.chain.size());
    });
    std::size_t offset = 0;
    const EntryInfo& info = loaded.reader->info();
    for (std::size_t section = 0; section < loaded.section_count; ++section) {
      const std::span<std::byte> stored =
          std::span(loaded.stored).subspan(offset, info.stored_bytes(section));
      offset += stored.size();
      const std::span<const std::byte> plain =
          checked(index, [&] { return loaded.reader->open_section(section, stored); });
      if (section < 2)
        take_prefix(section, plain);
      else
        deliver(section, info, plain);
      if (section == 1) checked(index, [&] { check_identity(index, info.header); });
    }
    parent_ = hit_.chain[index];
    token_end_ = info.header.token_end;
    byte_end_ = info.header.byte_end;
    result_.has_logits = info.header.has_logits;
  }

  void check_header(std::size_t index, const EntryHeader& header) const {
    const KeyContext& context = space_.context();
    const bool last = index + 1 == hit_.chain.size();
    require(header.id == hit_.chain[index], "it is another one than its name says");
    require(header.parent == parent_, "it belongs to another chain");
    require(header.fingerprint == context.fingerprint &&
                header.layout_digest == context.layout_digest &&
                header.name_space == context.name_space &&
                header.chunk_tokens == context.chunk_tokens,
            "it belongs to another model, layout or namespace");
    require(header.token_begin == token_end_ && header.byte_begin == byte_end_,
            "it does not follow the entry before");
    require(last || header.kind == EntryKind::kChunk, "a tail in the middle of a chain");
    require(!last || (header.has_state && header.token_end == hit_.token_count),
            "it carries no resume state");
  }

  static bool matches(const Section& section,
                      ArrayKind kind,
                      std::uint32_t layer,
                      std::uint64_t row_begin,
                      std::uint32_t row_bytes,
                      std::uint64_t rows) {
    return section.kind == static_cast<std::uint16_t>(kind) && section.layer == layer &&
           section.row_begin == row_begin && section.row_bytes == row_bytes &&
           section.bytes == rows * row_bytes;
  }

  // Every declared size must be the one that the layout gives for these tokens.
  void check_sections(const EntryInfo& info, bool last) const {
    const EntryHeader& header = info.header;
    require(info.sections.size() >= 2 + layout_.rows.size(), "sections are missing");
    std::size_t at = 2;
    for (const RowArray& array : layout_.rows) {
      const std::uint64_t first = row_count(array, header.token_begin);
      const std::uint64_t rows = row_count(array, header.token_end) - first;
      require(matches(info.sections[at++], array.kind, array.layer, first, array.row_bytes, rows),
              "rows of another shape");
    }
    if (!last) return;
    for (const CarryArray& array : layout_.carries) {
      if (array.place == CarryPlace::kTailOnly && !header.has_logits) continue;
      require(at < info.sections.size(), "sections are missing");
      require(matches(info.sections[at++], array.kind, array.layer, 0, array.row_bytes,
                      row_count(array, header.token_end)),
              "state of another shape");
    }
    require(at == info.sections.size(), "sections too many");
  }

  // Token ids and text, which come before any row.
  void take_prefix(std::size_t section, std::span<const std::byte> plain) {
    if (section == 1) return keys_.append(plain);
    const std::size_t before = result_.tokens.size();
    result_.tokens.resize(before + plain.size() / sizeof(TokenId));
    own_tokens_ = std::span(result_.tokens).subspan(before);
    std::memcpy(own_tokens_.data(), plain.data(), plain.size());
  }

  // The name must follow from what is inside.
  void check_identity(std::size_t index, const EntryHeader& header) const {
    require(keys_.key() == header.key, "its text is not what its key says");
    require(entry_id(header.kind, parent_, header.key, own_tokens_) == hit_.chain[index],
            "its tokens are not what its name says");
  }

  void deliver(std::size_t section, const EntryInfo& info, std::span<const std::byte> plain) {
    const std::size_t array = section - 2;
    if (array < layout_.rows.size()) {
      if (!plain.empty()) sink_.write_rows(array, info.sections[section].row_begin, plain);
      return;
    }
    std::size_t carry = array - layout_.rows.size();
    if (!info.header.has_logits) carry = every_state_array(carry);
    sink_.write_carry(carry, plain);
  }

  // The carry array that is the `ordinal`-th of those that every state holds.
  std::size_t every_state_array(std::size_t ordinal) const {
    for (std::size_t array = 0; array < layout_.carries.size(); ++array) {
      if (layout_.carries[array].place == CarryPlace::kTailOnly) continue;
      if (ordinal == 0) return array;
      --ordinal;
    }
    return layout_.carries.size();
  }

  StoreContext& context_;
  const KeySpace& space_;
  const StateLayout& layout_;
  const Hit& hit_;
  StateSink& sink_;
  KeyChain keys_;
  EntryId parent_;
  std::uint64_t token_end_ = 0;
  std::uint64_t byte_end_ = 0;
  std::span<TokenId> own_tokens_;
  std::uint64_t file_number_ = 0;  // of the entry being taken
  Restored result_;
};

// Counts the use, if it can be written down.
void mark_used(StoreContext& context, const Hit& hit) {
  if (context.read_only) return;
  try {
    const std::lock_guard lock(context.catalogue_mutex);
    Transaction transaction(context.catalogue->database());
    context.catalogue->mark_used(hit.chain, context.now_s(), context.options.half_life_s);
    transaction.commit();
  } catch (const Error& error) {
    context.say(LogLevel::kWarning, fmt::format("kv: use not counted: {}", error.what()));
  }
}

}  // namespace

Restored Store::restore(const KeySpace& space, const Hit& hit, StateSink& sink) {
  DS4_CHECK(!hit.chain.empty());
  Lease lease;
  try {
    lease = hold(hit);
  } catch (const Error& error) {
    // A full disk takes no leases.  Without one an eviction can make this load fail, no more.
    context_->say(LogLevel::kWarning, fmt::format("kv: loading without a lease: {}", error.what()));
  }
  try {
    Restored restored = Restorer(*context_, space, hit, sink).run();
    mark_used(*context_, hit);
    return restored;
  } catch (const DamagedEntry& damaged) {
    const bool last = damaged.index + 1 == hit.chain.size();
    if (damaged.code != ErrorCode::kIo)
      context_->quarantine(last ? hit.kind : EntryKind::kChunk, hit.chain[damaged.index],
                           damaged.file_number, damaged.reason);
    const ErrorCode code =
        damaged.code == ErrorCode::kUnsupported ? ErrorCode::kBadFormat : damaged.code;
    throw Error(code, damaged.reason);
  }
}

}  // namespace ds4::kvstore
