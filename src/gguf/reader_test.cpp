// The reader on hand-made bytes: what it reads, and that nothing damaged gets past it.
#include "gguf/reader.h"

#include <cstring>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace ds4::gguf {
namespace {

// Builds GGUF bytes field by field, independently of Writer.
class Bytes {
 public:
  template <class T>
  Bytes& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& text(std::string_view text) {
    put(std::uint64_t{text.size()});
    bytes_.append(text);
    return *this;
  }
  Bytes& head(std::uint64_t tensors, std::uint64_t pairs) {
    bytes_ += "GGUF";
    return put(std::uint32_t{3}).put(tensors).put(pairs);
  }
  Bytes& key(std::string_view name, ValueType type) {
    return text(name).put(static_cast<std::uint32_t>(type));
  }
  Bytes& tensor(std::string_view name,
                std::vector<std::uint64_t> shape,
                std::uint32_t type,
                std::uint64_t offset) {
    text(name).put(static_cast<std::uint32_t>(shape.size()));
    for (const std::uint64_t extent : shape)
      put(extent);
    return put(type).put(offset);
  }
  Bytes& data(std::size_t byte_count, std::size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + byte_count, 'x');
    return *this;
  }
  const std::string& string() const { return bytes_; }

 private:
  std::string bytes_;
};

Reader read(const std::string& bytes) {
  return Reader(std::as_bytes(std::span(bytes)), "test.gguf");
}

// The message of the error that reading `bytes` gives; empty when it gives none.
std::string error_of(const std::string& bytes) {
  try {
    read(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

std::string sample() {
  Bytes bytes;
  bytes.head(3, 8);
  bytes.key("general.architecture", ValueType::kString).text("deepseek4");
  bytes.key("small", ValueType::kI8).put(std::int8_t{-5});
  bytes.key("count", ValueType::kU32).put(std::uint32_t{43});
  bytes.key("half", ValueType::kF64).put(0.5);
  bytes.key("yes", ValueType::kBool).put(std::uint8_t{1});
  bytes.key("ratios", ValueType::kArray).put(std::uint32_t{5}).put(std::uint64_t{3});
  bytes.put(std::int32_t{0}).put(std::int32_t{4}).put(std::int32_t{128});
  bytes.key("words", ValueType::kArray).put(std::uint32_t{8}).put(std::uint64_t{3});
  bytes.text("a").text("").text("left right");
  bytes.key("nested", ValueType::kArray).put(std::uint32_t{9}).put(std::uint64_t{1});
  bytes.put(std::uint32_t{0}).put(std::uint64_t{2}).put(std::uint8_t{1}).put(std::uint8_t{2});
  bytes.tensor("vector", {4}, 0, 0);
  bytes.tensor("matrix", {64, 3}, 8, 32);
  bytes.tensor("foreign", {7, 7}, 99, 256);
  return bytes.data(256 + 32).string();
}

TEST(Reader, ReadsMetadata) {
  const std::string bytes = sample();
  const Reader reader = read(bytes);
  EXPECT_EQ(reader.keys().size(), 8U);
  EXPECT_EQ(reader.keys()[1], "small");
  EXPECT_EQ(reader.get_string("general.architecture"), "deepseek4");
  EXPECT_EQ(reader.get_u32("count"), 43U);
  EXPECT_EQ(reader.get_u64("count"), 43U);
  EXPECT_EQ(reader.get_f32("count"), 43.0F);
  EXPECT_EQ(reader.get_f32("half"), 0.5F);
  EXPECT_TRUE(reader.get_bool("yes"));
  EXPECT_EQ(reader.get_u32_array("ratios"), (std::vector<std::uint32_t>{0, 4, 128}));
  EXPECT_EQ(reader.get_f32_array("ratios"), (std::vector<float>{0, 4, 128}));
  const StringArray words = reader.get_strings("words");
  EXPECT_EQ(std::vector<std::string>(words.begin(), words.end()),
            (std::vector<std::string>{"a", "", "left right"}));
  EXPECT_EQ(words.size(), 3U);
  EXPECT_FALSE(reader.find_u32("absent").has_value());
  EXPECT_FALSE(reader.find_strings("absent").has_value());
}

TEST(Reader, ReadsTensors) {
  const std::string bytes = sample();
  const Reader reader = read(bytes);
  ASSERT_EQ(reader.tensors().size(), 3U);
  const TensorInfo* matrix = reader.find_tensor("matrix");
  ASSERT_NE(matrix, nullptr);
  EXPECT_EQ(matrix->shape, (std::vector<std::uint64_t>{64, 3}));
  EXPECT_EQ(matrix->type, ElementType::kQ8_0);
  EXPECT_EQ(matrix->bytes.size(), 3U * 2 * 34);
  EXPECT_EQ(matrix->bytes.data(),
            reinterpret_cast<const std::byte*>(bytes.data()) + reader.data_offset() + 32);
  EXPECT_EQ(matrix->value_count(), 192U);
  EXPECT_EQ(matrix->shape_text(), "[64, 3]");
  const TensorInfo* foreign = reader.find_tensor("foreign");
  ASSERT_NE(foreign, nullptr);
  EXPECT_FALSE(foreign->type.has_value());
  EXPECT_EQ(foreign->type_name(), "type 99");
  EXPECT_TRUE(foreign->bytes.empty());
  EXPECT_EQ(reader.find_tensor("absent"), nullptr);
}

TEST(Reader, SaysWhatAKeyShouldHaveBeen) {
  const std::string bytes = sample();
  const Reader reader = read(bytes);
  const auto message_of = [&](auto access) -> std::string {
    try {
      access();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadFormat);
      return error.what();
    }
    return {};
  };
  EXPECT_EQ(message_of([&] { reader.get_u32("small"); }),
            "test.gguf: metadata key 'small' is -5; a 32-bit natural number was expected");
  EXPECT_EQ(message_of([&] { reader.get_u32("half"); }),
            "test.gguf: metadata key 'half' is of type f64; a 32-bit natural number was expected");
  EXPECT_NE(message_of([&] { reader.get_bool("count"); }), "");
  EXPECT_NE(message_of([&] { reader.get_string("count"); }), "");
  EXPECT_NE(message_of([&] { reader.get_strings("ratios"); }), "");
  EXPECT_NE(message_of([&] { reader.get_u32_array("words"); }), "");
  EXPECT_NE(message_of([&] { reader.get_u32_array("nested"); }), "");
  EXPECT_NE(message_of([&] { reader.get_u32_array("count"); }), "");
  EXPECT_THAT(message_of([&] { reader.get_u32("absent"); }),
              testing::HasSubstr("'absent' is missing"));
}

TEST(Reader, RefusesEveryTruncation) {
  const std::string bytes = sample();
  // The last tensor's type is foreign, so its size is unknown and only its offset is checked: every
  // byte before that offset is needed.
  for (std::size_t kept = 0; kept < bytes.size() - 32; ++kept)
    ASSERT_NE(error_of(bytes.substr(0, kept)), "") << kept;
  EXPECT_EQ(error_of(bytes), "");
}

TEST(Reader, SurvivesRandomDamage) {
  const std::string sound = sample();
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = sound;
    for (unsigned change = 0; change <= random() % 4; ++change)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      const Reader reader = read(bytes);
      for (const TensorInfo& tensor : reader.tensors())
        ASSERT_LE(tensor.bytes.size(), bytes.size());
    } catch (const Error&) {
    }
  }
}

TEST(Reader, TellsOtherFilesApart) {
  EXPECT_THAT(error_of(""), testing::HasSubstr("not a GGUF file"));
  EXPECT_THAT(error_of("PK\x03\x04 and more bytes"), testing::HasSubstr("not a GGUF file"));
  EXPECT_THAT(error_of(Bytes().put('G').put('G').put('U').put('F').put(std::uint32_t{2}).string()),
              testing::HasSubstr("version 2"));
  EXPECT_THAT(
      error_of(Bytes().put('G').put('G').put('U').put('F').put(std::uint32_t{3} << 24).string()),
      testing::HasSubstr("big-endian"));
}

TEST(Reader, RefusesImpossibleCounts) {
  constexpr std::uint64_t kHuge = ~std::uint64_t{0};
  EXPECT_THAT(error_of(Bytes().head(kHuge, 0).data(64).string()),
              testing::HasSubstr("number of tensors"));
  EXPECT_THAT(error_of(Bytes().head(0, kHuge).data(64).string()),
              testing::HasSubstr("number of metadata pairs"));
  Bytes array;
  array.head(0, 1).key("a", ValueType::kArray).put(std::uint32_t{10}).put(kHuge / 8 + 1).data(64);
  EXPECT_THAT(error_of(array.string()), testing::HasSubstr("array's length"));
  Bytes text;
  text.head(0, 1).key("a", ValueType::kString).put(kHuge - 7).data(64);
  EXPECT_THAT(error_of(text.string()), testing::HasSubstr("string value"));
  Bytes deep;
  deep.head(0, 1).key("a", ValueType::kArray);
  for (int depth = 0; depth < 40; ++depth)
    deep.put(std::uint32_t{9}).put(std::uint64_t{1});
  EXPECT_THAT(error_of(deep.data(64).string()), testing::HasSubstr("nests"));
}

TEST(Reader, RefusesDuplicatesAndBadNames) {
  Bytes keys;
  keys.head(0, 2).key("a", ValueType::kU8).put('1').key("a", ValueType::kU8).put('2').data(32);
  EXPECT_THAT(error_of(keys.string()), testing::HasSubstr("'a' appears twice"));
  Bytes tensors;
  tensors.head(2, 0).tensor("t", {8}, 0, 0).tensor("t", {8}, 0, 32).data(64);
  EXPECT_THAT(error_of(tensors.string()), testing::HasSubstr("'t' appears twice"));
  EXPECT_NE(error_of(Bytes().head(0, 1).key("", ValueType::kU8).put('1').data(32).string()), "");
  EXPECT_NE(error_of(Bytes().head(0, 1).key("a", ValueType{77}).put('1').data(32).string()), "");
}

TEST(Reader, RefusesBadTensors) {
  const auto with = [](std::vector<std::uint64_t> shape, std::uint32_t type, std::uint64_t offset) {
    return error_of(Bytes().head(1, 0).tensor("t", shape, type, offset).data(128).string());
  };
  EXPECT_EQ(with({32}, 0, 0), "");
  EXPECT_THAT(with({}, 0, 0), testing::HasSubstr("0 axes"));
  EXPECT_THAT(with(std::vector<std::uint64_t>(9, 1), 0, 0), testing::HasSubstr("9 axes"));
  EXPECT_THAT(with({0}, 0, 0), testing::HasSubstr("empty axis"));
  EXPECT_THAT(with({std::uint64_t{1} << 33, std::uint64_t{1} << 33}, 0, 0),
              testing::HasSubstr("impossibly large"));
  EXPECT_THAT(with({std::uint64_t{1} << 62}, 0, 0), testing::HasSubstr("impossibly large"));
  EXPECT_THAT(with({33}, 8, 0), testing::HasSubstr("blocks of 32"));
  EXPECT_THAT(with({32}, 0, 4), testing::HasSubstr("multiple of the alignment"));
  EXPECT_THAT(with({33}, 0, 0), testing::HasSubstr("truncated"));
  EXPECT_THAT(with({32}, 0, ~std::uint64_t{31}), testing::HasSubstr("truncated"));
}

TEST(Reader, AlignmentIsAPowerOfTwoInBounds) {
  const auto with = [](std::uint32_t alignment) {
    Bytes bytes;
    bytes.head(1, 1).key("general.alignment", ValueType::kU32).put(alignment);
    return error_of(bytes.tensor("t", {8}, 0, 0).data(4096, 64).string());
  };
  EXPECT_EQ(with(64), "");
  EXPECT_EQ(with(8), "");
  for (const std::uint32_t alignment : {0U, 1U, 4U, 24U, 48U, 1U << 21, 0x80000000U})
    EXPECT_THAT(with(alignment), testing::HasSubstr("general.alignment")) << alignment;
}

}  // namespace
}  // namespace ds4::gguf
