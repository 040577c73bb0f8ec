#include <chrono>
#include <exception>
#include <optional>
#include <semaphore>
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

constexpr std::size_t kFilesAhead = 3;     // read, waiting for their use
constexpr std::ptrdiff_t kFilesAsked = 8;  // that the disk may work on

// One file of the chain as it came from the disk, not yet checked.
struct Loaded {
  std::optional<EntryReader> reader;
  std::size_t section_count = 0;
  std::vector<std::byte> stored;
  std::uint64_t file_number = 0;  // taken before the file was opened
  std::exception_ptr failure;
};

// Reads the files of a chain ahead of their use, on threads of its own, and holds them until they
// are read.
class ReadAhead {
 public:
  ReadAhead(Store& store, const Hit& hit, std::size_t row_sections)
      : store_(store),
        context_(store.context()),
        hit_(hit),
        row_sections_(row_sections),
        ready_(kFilesAhead),
        spare_(kFilesAhead + 1),
        asking_([this](const std::stop_token& stop) { ask(stop); }),
        thread_([this](const std::stop_token& stop) { work(stop); }) {}
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead() {
    thread_.request_stop();
    asking_.request_stop();
    ready_.close();
    room_.release();
  }

  // The next file of the chain, if it comes before `deadline`.
  std::optional<Loaded> next(std::chrono::steady_clock::time_point deadline) {
    return ready_.pop_until(deadline);
  }
  // Gives a buffer back to be read into again.
  void recycle(std::vector<std::byte> storage) { spare_.try_push(storage); }

 private:
  void work(const std::stop_token& stop) {
    const Lease lease = hold();
    for (std::size_t i = 0; i < hit_.chain.size() && !stop.stop_requested(); ++i) {
      Loaded loaded;
      if (auto storage = spare_.try_pop()) loaded.stored = std::move(*storage);
      const bool last = i + 1 == hit_.chain.size();
      try {
        read(loaded, i, last);
      } catch (...) {
        loaded.failure = std::current_exception();
      }
      room_.release();
      const bool failed = loaded.failure != nullptr;
      if (!ready_.push(std::move(loaded), stop) || failed) return;
    }
  }

  // Has the disk work on the files that come next.  On a thread of its own: making room for them in
  // the page cache takes as long as copying them out of it.
  void ask(const std::stop_token& stop) {
    for (std::size_t i = 1; i < hit_.chain.size(); ++i) {
      room_.acquire();
      if (stop.stop_requested()) return;
      prefetch_file(path_of(i));
    }
  }

  // A full disk takes no leases.  Without one an eviction can make this load fail, no more.
  Lease hold() const {
    try {
      return store_.hold(hit_);
    } catch (const Error& error) {
      context_.say(LogLevel::kWarning,
                   fmt::format("kv: loading without a lease: {}", error.what()));
      return {};
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
    const std::size_t useful = loaded.reader->header().has_aliases ? all - 1 : all;
    loaded.section_count = last ? useful : std::min(all, row_sections_);
    loaded.reader->read_sections(0, loaded.section_count, loaded.stored);
  }

  Store& store_;
  const StoreContext& context_;
  const Hit& hit_;
  const std::size_t row_sections_;
  BoundedQueue<Loaded> ready_;
  BoundedQueue<std::vector<std::byte>> spare_;
  std::counting_semaphore<> room_{kFilesAsked};  // files that may be asked for
  // Last: they use all of the above.
  std::jthread asking_;
  std::jthread thread_;
};

// Something is wrong with the file of one entry of the chain.
struct DamagedEntry {
  std::size_t index;
  std::uint64_t file_number;
  ErrorCode code;
  std::string reason;
};

}  // namespace

class Restoration::Work {
 public:
  Work(Store& store, const KeySpace& space, Hit hit, StateSink& sink)
      : context_(store.context()),
        space_(space),
        layout_(space.model().layout),
        hit_(std::move(hit)),
        sink_(sink),
        keys_(space.context()),
        parent_(space.root()),
        ahead_(store, hit_, 2 + layout_.rows.size()) {}

  bool advance(std::chrono::steady_clock::time_point deadline) {
    try {
      if (next_ == 0 && !begun_) sink_.begin(hit_.token_count);
      begun_ = true;
      while (next_ < hit_.chain.size()) {
        std::optional<Loaded> loaded = ahead_.next(deadline);
        if (!loaded) return false;
        take(next_++, *loaded);
        result_.bytes_read += loaded->stored.size();
        ahead_.recycle(std::move(loaded->stored));
        if (next_ < hit_.chain.size() && std::chrono::steady_clock::now() >= deadline) return false;
      }
      result_.byte_count = byte_end_;
      return true;
    } catch (const DamagedEntry& damaged) {
      refuse(damaged);
    }
  }

  const Restored& result() const { return result_; }
  Restored take_result() { return std::move(result_); }
  const Hit& hit() const { return hit_; }

 private:
  [[noreturn]] void refuse(const DamagedEntry& damaged) const {
    const bool last = damaged.index + 1 == hit_.chain.size();
    if (damaged.code != ErrorCode::kIo)
      context_.quarantine(last ? hit_.kind : EntryKind::kChunk, hit_.chain[damaged.index],
                          damaged.file_number, damaged.reason);
    const ErrorCode code =
        damaged.code == ErrorCode::kUnsupported ? ErrorCode::kBadFormat : damaged.code;
    throw Error(code, damaged.reason);
  }

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
    require(at + (header.has_aliases ? 1 : 0) == info.sections.size(), "sections too many");
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
  const Hit hit_;
  StateSink& sink_;
  KeyChain keys_;
  EntryId parent_;
  std::uint64_t token_end_ = 0;
  std::uint64_t byte_end_ = 0;
  std::span<TokenId> own_tokens_;
  std::uint64_t file_number_ = 0;  // of the entry being taken
  Restored result_;
  std::size_t next_ = 0;  // in the chain
  bool begun_ = false;
  ReadAhead ahead_;  // last: its thread reads the hit
};

Restoration::Restoration(std::unique_ptr<Work> work) : work_(std::move(work)) {}
Restoration::~Restoration() = default;

bool Restoration::advance(std::chrono::steady_clock::time_point deadline) {
  return work_->advance(deadline);
}

const Restored& Restoration::result() const {
  return work_->result();
}

const Hit& Restoration::hit() const {
  return work_->hit();
}

std::unique_ptr<Restoration> Store::begin_restore(const KeySpace& space, Hit hit, StateSink& sink) {
  DS4_CHECK(!hit.chain.empty());
  return std::unique_ptr<Restoration>(
      new Restoration(std::make_unique<Restoration::Work>(*this, space, std::move(hit), sink)));
}

Restored Store::restore(const KeySpace& space, const Hit& hit, StateSink& sink) {
  constexpr std::chrono::hours kPatience{1};  // a disk that gives nothing for so long is dead
  DS4_CHECK(!hit.chain.empty());
  Restoration::Work work(*this, space, hit, sink);
  if (!work.advance(std::chrono::steady_clock::now() + kPatience))
    throw Error(ErrorCode::kIo, "kv: the disk does not answer");
  mark_used(hit);
  return work.take_result();
}

}  // namespace ds4::kvstore
