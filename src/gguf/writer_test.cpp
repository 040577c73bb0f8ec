// Files written by Writer, read back by Reader, and what is left on the disk when writing fails.
#include "gguf/writer.h"

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "base/error.h"
#include "gguf/reader.h"

namespace ds4::gguf {
namespace {

class WriterTest : public testing::Test {
 protected:
  WriterTest() {
    directory_ =
        std::filesystem::temp_directory_path() / ("ds4-writer-test-" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_);
  }
  ~WriterTest() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path path() const { return directory_ / "model.gguf"; }
  bool directory_is_empty() const { return std::filesystem::is_empty(directory_); }

  std::filesystem::path directory_;
};

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

TEST_F(WriterTest, WhatIsWrittenIsReadBack) {
  const std::vector<float> vector = {1, 2, 3};
  const std::vector<std::int32_t> table = {5, -6, 7, 8};
  {
    Writer writer(path());
    writer.set_string("general.architecture", "deepseek4");
    writer.set_u32("a.u32", 7);
    writer.set_u64("a.u64", std::uint64_t{1} << 40);
    writer.set_f32("a.f32", 0.25F);
    writer.set_bool("a.bool", true);
    writer.set_i32_array("a.i32s", table);
    writer.set_f32_array("a.f32s", vector);
    writer.set_u32_array("a.u32s", std::vector<std::uint32_t>{1, 2});
    writer.set_string_array("a.words", std::vector<std::string>{"x", "", "y z"});
    const std::size_t first = writer.add_tensor("vector", ElementType::kF32, {{3}});
    const std::size_t second = writer.add_tensor("table", ElementType::kI32, {{2, 2}});
    writer.begin_data();
    writer.write_tensor(second, 8, bytes_of(table).subspan(8));
    writer.write_tensor(second, 0, bytes_of(table).first(8));
    writer.write_tensor(first, 0, bytes_of(vector));
    EXPECT_FALSE(std::filesystem::exists(path()));
    writer.commit();
    EXPECT_EQ(std::filesystem::file_size(path()), writer.file_bytes());
  }
  const Reader reader(path());
  EXPECT_EQ(reader.get_u32("a.u32"), 7U);
  EXPECT_EQ(reader.get_u64("a.u64"), std::uint64_t{1} << 40);
  EXPECT_EQ(reader.get_f32("a.f32"), 0.25F);
  EXPECT_TRUE(reader.get_bool("a.bool"));
  EXPECT_EQ(reader.find_i32_array("a.i32s"), table);
  EXPECT_EQ(reader.get_f32_array("a.f32s"), vector);
  const StringArray words = reader.get_strings("a.words");
  EXPECT_EQ(std::vector<std::string>(words.begin(), words.end()),
            (std::vector<std::string>{"x", "", "y z"}));
  const auto data = reader.find_tensor("table")->bytes;
  EXPECT_TRUE(std::equal(data.begin(), data.end(), bytes_of(table).begin()));
  EXPECT_EQ(reader.find_tensor("vector")->shape, std::vector<std::uint64_t>{3});
}

TEST_F(WriterTest, MetadataOfAnotherFileIsCopiedUnchanged) {
  {
    Writer writer(path());
    writer.set_f32("x", 1.5F);
    writer.set_string_array("words", std::vector<std::string>{"a", "b"});
    writer.begin_data();
    writer.commit();
  }
  const Reader first(path());
  const auto copy = directory_ / "copy.gguf";
  {
    Writer writer(copy);
    for (const std::string_view key : first.keys())
      writer.set(key, *first.find(key));
    writer.begin_data();
    writer.commit();
  }
  EXPECT_EQ(read_text_file(copy, 1 << 20), read_text_file(path(), 1 << 20));
}

TEST_F(WriterTest, SeveralThreadsWriteParts) {
  constexpr std::size_t kRows = 64;
  constexpr std::size_t kRowBytes = 1024 * sizeof(float);
  {
    Writer writer(path());
    const std::size_t tensor = writer.add_tensor("m", ElementType::kF32, {{1024, kRows}});
    writer.begin_data();
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t row = t; row < kRows; row += 4) {
          writer.write_tensor(tensor, row * kRowBytes,
                              bytes_of(std::vector<float>(1024, static_cast<float>(row))));
        }
      });
    }
    threads.clear();
    writer.commit();
  }
  const Reader reader(path());
  const auto data = reader.find_tensor("m")->bytes;
  for (std::size_t row = 0; row < kRows; ++row) {
    float value = -1;
    std::memcpy(&value, data.data() + (row + 1) * kRowBytes - sizeof value, sizeof value);
    EXPECT_EQ(value, static_cast<float>(row));
  }
}

TEST_F(WriterTest, NothingIsLeftWithoutCommit) {
  {
    Writer writer(path());
    writer.add_tensor("m", ElementType::kF32, {{256}});
    writer.begin_data();
  }
  EXPECT_TRUE(directory_is_empty());
}

TEST_F(WriterTest, ADiskThatIsTooSmallIsReportedBeforeTheWork) {
  // A file size limit stands in for a full disk: both make the reservation fail.
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 1 << 16;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    Writer writer(path());
    writer.add_tensor("m", ElementType::kF32, {{256, 1024}});
    writer.begin_data();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, testing::HasSubstr("model.gguf"));
  EXPECT_TRUE(directory_is_empty());
}

TEST_F(WriterTest, ReplacesAnOlderFileOnlyAtTheEnd) {
  { std::ofstream(path()) << "old"; }
  Writer writer(path());
  writer.begin_data();
  EXPECT_EQ(read_text_file(path(), 100), "old");
  writer.commit();
  EXPECT_EQ(read_text_file(path(), 100).substr(0, 4), "GGUF");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(WriterTest, RefusesWhatIsNoFile) {
  // Renaming over a device would replace it.
  EXPECT_THROW(Writer{"/dev/null"}, Error);
  EXPECT_THROW(Writer{directory_}, Error);
  EXPECT_THROW(Writer{directory_ / "absent" / "model.gguf"}, Error);
}

}  // namespace
}  // namespace ds4::gguf
