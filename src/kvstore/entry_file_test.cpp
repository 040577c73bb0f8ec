#include "kvstore/entry_file.h"

#include <fstream>

#include "base/error.h"
#include "kvstore/bundle.h"
#include "kvstore/test_store.h"
#include "kvstore/wire.h"

namespace ds4::kvstore {
namespace {

ErrorCode code_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInternal;
}

// A tail of one token, as bytes.
std::vector<std::byte> small_tail(const Cipher* cipher) {
  EntryHeader header;
  header.kind = EntryKind::kTail;
  header.token_end = 1;
  header.byte_end = 3;
  header.chunk_tokens = 128;
  header.codec = "test";
  header.salt.fill(9);
  std::vector<std::byte> storage;
  EntryEncoder encoder(header,
                       {{.kind = kSectionTokens, .row_bytes = 4, .bytes = 4},
                        {.kind = kSectionText, .row_bytes = 1, .bytes = 3},
                        {.kind = 16, .layer = 5, .row_bytes = 8, .bytes = 16}},
                       cipher, storage);
  for (std::size_t section = 0; section < 3; ++section) {
    for (std::byte& byte : encoder.section(section))
      byte = std::byte{0x5a};
  }
  encoder.finish();
  return storage;
}

class EntryFileTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    std::filesystem::create_directories(directory_);
  }
  std::filesystem::path write(const std::vector<std::byte>& bytes) {
    const std::filesystem::path path = directory_ / "entry";
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }
};

// The places that docs/formats/kv-chunk.md names.  A change here is a new version of the format.
TEST_F(EntryFileTest, FieldsLieWhereTheFormatSays) {
  const std::vector<std::byte> bytes = small_tail(nullptr);
  const FieldReader in(bytes);
  EXPECT_EQ(in.get_text(0, 5), "DS4KV");
  EXPECT_EQ(in.get<std::uint32_t>(8), 1U);
  EXPECT_EQ(in.get<std::uint32_t>(12), 2U);
  EXPECT_EQ(in.get<std::uint32_t>(16), 3U);
  EXPECT_EQ(in.get<std::uint64_t>(32), 1U);
  EXPECT_EQ(in.get<std::uint64_t>(48), 3U);
  EXPECT_EQ(in.get<std::uint64_t>(56), bytes.size());
  EXPECT_EQ(in.get<std::uint32_t>(96), 128U);
  EXPECT_EQ(in.get_text(288, 32), "test");
  ASSERT_EQ(bytes.size(), 512U + 3 * 48 + 4 + 3 + 16);
  EXPECT_EQ(in.get<std::uint16_t>(512 + 2 * 48), 16U);
  EXPECT_EQ(in.get<std::uint32_t>(512 + 2 * 48 + 4), 5U);
  EXPECT_EQ(in.get<std::uint64_t>(512 + 2 * 48 + 24), 512U + 3 * 48 + 7);
  EXPECT_EQ(in.get<std::uint64_t>(512 + 2 * 48 + 40), xxh3(std::span(bytes).last(16)));
}

TEST_F(EntryFileTest, RefusesImpossibleSizesBeforeAllocating) {
  const auto damaged = [&](std::size_t at, std::uint64_t value) {
    std::vector<std::byte> bytes = small_tail(nullptr);
    FieldWriter out(bytes);
    out.put(at, value);
    // A right checksum, so that the check of the field itself is what refuses it.
    std::vector<std::byte> covered(bytes.begin(), bytes.begin() + 504);
    covered.insert(covered.end(), bytes.begin() + 512, bytes.begin() + 512 + 3 * 48);
    out.put(504, xxh3(covered));
    return code_of([&] { EntryReader reader(write(bytes), nullptr); });
  };
  const std::uint64_t huge = std::uint64_t{1} << 62;
  EXPECT_EQ(damaged(512 + 2 * 48 + 32, huge), ErrorCode::kBadFormat);   // a section's bytes
  EXPECT_EQ(damaged(512 + 2 * 48 + 32, ~huge), ErrorCode::kBadFormat);  // which wrap around
  EXPECT_EQ(damaged(512 + 2 * 48 + 24, huge), ErrorCode::kBadFormat);   // its offset
  EXPECT_EQ(damaged(32, huge), ErrorCode::kBadFormat);                  // tokens
  EXPECT_EQ(damaged(48, huge), ErrorCode::kBadFormat);                  // text
  EXPECT_EQ(damaged(56, huge), ErrorCode::kBadFormat);                  // the file
  EXPECT_EQ(damaged(96, 0), ErrorCode::kBadFormat);                     // a chunk's tokens
  EXPECT_EQ(damaged(16, 0xffffffffULL), ErrorCode::kBadFormat);         // sections
  EXPECT_EQ(damaged(8, 2ULL | 2ULL << 32), ErrorCode::kUnsupported);    // the version
  EXPECT_EQ(damaged(32, 1), ErrorCode::kInternal) << "the unchanged file is sound";
}

TEST_F(EntryFileTest, ACipherSealsEverySectionAndItsPlace) {
  Sha256Digest key{};
  key.fill(3);
  const Cipher cipher(key);
  const std::vector<std::byte> bytes = small_tail(&cipher);
  const EntryReader reader(write(bytes), &cipher);
  EXPECT_EQ(reader.section(1), std::vector<std::byte>(3, std::byte{0x5a}));
  EXPECT_NE(bytes[512 + 3 * 48], std::byte{0x5a});
  EXPECT_EQ(code_of([&] { EntryReader(write(bytes), nullptr).section(0); }),
            ErrorCode::kInvalidArgument);
  EXPECT_NO_THROW(EntryReader(write(bytes), nullptr).check_all());
  // Another file's header with right checksums does not open these sections.
  std::vector<std::byte> moved = bytes;
  FieldWriter out(moved);
  out.put(112, std::uint64_t{1});
  std::vector<std::byte> covered(moved.begin(), moved.begin() + 504);
  covered.insert(covered.end(), moved.begin() + 512, moved.begin() + 512 + 3 * 48);
  out.put(504, xxh3(covered));
  EXPECT_EQ(code_of([&] { EntryReader(write(moved), &cipher).section(0); }), ErrorCode::kBadFormat);
}

TEST(Cipher, DerivesADifferentKeyForEverySalt) {
  Sha256Digest key{};
  const Cipher cipher(key);
  CipherSalt salt{};
  std::vector<std::byte> one(16);
  std::vector<std::byte> two(16);
  std::vector<std::byte> tag(16);
  cipher.file_cipher(salt).seal(section_nonce(0), {}, one, tag);
  salt[0] = 1;
  cipher.file_cipher(salt).seal(section_nonce(0), {}, two, tag);
  EXPECT_NE(one, two);
  EXPECT_TRUE(cipher.file_cipher(salt).open(section_nonce(0), {}, two, tag));
  EXPECT_EQ(two, std::vector<std::byte>(16));
}

TEST(Bundle, RefusesWhatReachesPastTheEnd) {
  const std::uint64_t sizes[] = {100, 50};
  const std::vector<std::byte> preface = encode_bundle_preface(30, sizes);
  const std::uint64_t total = preface.size() + 180;
  EXPECT_EQ(decode_bundle_preface(preface, total).entry_offsets[1], preface.size() + 130);
  EXPECT_THROW(decode_bundle_preface(preface, total - 1), Error);
  EXPECT_THROW(decode_bundle_preface(preface, total + 1), Error);
  const std::uint64_t wrapping[] = {~std::uint64_t{0} - 10, 50};
  EXPECT_THROW(decode_bundle_preface(encode_bundle_preface(30, wrapping), total), Error);
}

}  // namespace
}  // namespace ds4::kvstore
