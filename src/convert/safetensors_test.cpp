// Checkpoint files: what is read, and what a hostile header cannot do.
#include "convert/safetensors.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "convert/test_checkpoint.h"

namespace ds4::convert {
namespace {

using ::testing::HasSubstr;
using testing::safetensors_bytes;
using testing::TestDirectory;
using testing::write_file;

SafetensorsFile read(const std::string& bytes) {
  return SafetensorsFile(std::as_bytes(std::span(bytes)), "test.safetensors");
}

std::string error_of(const std::string& bytes) {
  try {
    read(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

// A file with this header text and `data_bytes` of data.
std::string with_header(const std::string& header, std::size_t data_bytes = 16) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i)
    bytes[i] = static_cast<char>(header.size() >> (8 * i));
  return bytes + header + std::string(data_bytes, 'x');
}

TEST(Safetensors, ReadsTensors) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::string bytes = safetensors_bytes({{"a", testing::f32_tensor({2, 3}, values)},
                                               {"b", testing::bf16_tensor({6}, values)},
                                               {"mask", {"BOOL", {2}, "xy"}}});
  const SafetensorsFile file = read(bytes);
  ASSERT_EQ(file.tensors().size(), 2U);  // no tensor of ours is boolean
  const SourceTensor& a = file.tensors().at("a");
  EXPECT_EQ(a.describe(), "F32 [2, 3]");
  EXPECT_EQ(a.bytes.size(), 24U);
  EXPECT_EQ(file.tensors().at("b").bytes.size(), 12U);
}

TEST(Safetensors, RefusesHostileHeaders) {
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("1234567"), "");
  EXPECT_THAT(error_of(std::string(8, '\xFF') + "{}"), HasSubstr("header claims"));
  EXPECT_THAT(error_of(with_header("{")), HasSubstr("JSON"));
  EXPECT_THAT(error_of(with_header("[]")), HasSubstr("not an object"));
  EXPECT_THAT(error_of(with_header(R"({"a":1})")), HasSubstr("lacks"));
  const auto entry = [&](const std::string& shape, const std::string& offsets) {
    return error_of(with_header(R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" +
                                offsets + "}}"));
  };
  EXPECT_EQ(entry("[4]", "[0,16]"), "");
  EXPECT_THAT(entry("[4]", "[0,17]"), HasSubstr("truncated"));
  EXPECT_THAT(entry("[4]", "[16,0]"), HasSubstr("truncated"));
  EXPECT_THAT(entry("[3]", "[0,16]"), HasSubstr("has 16 bytes"));
  EXPECT_THAT(entry("[-4]", "[0,16]"), HasSubstr("natural"));
  EXPECT_THAT(entry("[4]", "[0,1e1]"), HasSubstr("natural"));
  EXPECT_THAT(entry("[4]", "[0]"), HasSubstr("lacks"));
  EXPECT_THAT(entry("[4294967296,4294967296,4294967296]", "[0,16]"), HasSubstr("impossibly"));
  EXPECT_THAT(entry("[1,1,1,1,1,1,1,1,4]", "[0,16]"), HasSubstr("axes"));
  // 2^62 * 4 bytes wraps to 0.
  EXPECT_THAT(entry("[4611686018427387904]", "[0,0]"), HasSubstr("impossibly"));
  EXPECT_THAT(error_of(with_header(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},
                                       "a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})")),
              HasSubstr("twice"));
  // Nesting deep enough to overflow a recursive parser's stack.
  EXPECT_NE(error_of(with_header(std::string(1'000'000, '['))), "");
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::vector<float> values(8, 1.0F);
  const std::string bytes = safetensors_bytes({{"a", testing::f32_tensor({8}, values)}});
  for (std::size_t kept = 0; kept < bytes.size(); ++kept)
    ASSERT_NE(error_of(bytes.substr(0, kept)), "") << kept;
}

TEST(Safetensors, SurvivesRandomDamage) {
  const std::vector<float> values(8, 1.0F);
  const std::string sound = safetensors_bytes(
      {{"a", testing::f32_tensor({8}, values)}, {"b", testing::bf16_tensor({2, 4}, values)}});
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes = sound;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      read(bytes);
    } catch (const Error&) {
    }
  }
}

TEST(CheckpointTest, ReadsShardsThroughTheIndex) {
  const TestDirectory directory("shards");
  const std::vector<float> values = {1, 2};
  write_file(directory.path() / "one.safetensors",
             safetensors_bytes({{"a", testing::f32_tensor({2}, values)}}));
  write_file(directory.path() / "two.safetensors",
             safetensors_bytes({{"b", testing::f32_tensor({2}, values)}}));
  const auto index = directory.path() / "model.safetensors.index.json";
  write_file(index, R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const Checkpoint checkpoint(directory.path());
  EXPECT_NE(checkpoint.find("a"), nullptr);
  EXPECT_NE(checkpoint.find("b"), nullptr);
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  EXPECT_THROW(checkpoint.get("c"), Error);

  for (const char* bad :
       {R"({"weight_map":{"a":"../one.safetensors"}})",
        R"({"weight_map":{"a":"absent.safetensors"}})", R"({"weight_map":{"a":3}})",
        R"({"weight_map":[]})", R"({})", "not json"}) {
    write_file(index, bad);
    EXPECT_THROW(Checkpoint{directory.path()}, Error) << bad;
  }
}

TEST(CheckpointTest, RefusesAnEmptyDirectory) {
  const TestDirectory directory("empty");
  EXPECT_THROW(Checkpoint{directory.path()}, Error);
}

}  // namespace
}  // namespace ds4::convert
