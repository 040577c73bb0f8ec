#include "base/file.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/error.h"

namespace ds4 {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) /
                 testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::filesystem::path directory_;
};

ErrorCode code_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInternal;
}

TEST_F(FileTest, WritesAndMapsBack) {
  const auto path = directory_ / "a.bin";
  {
    AtomicFileWriter writer(path);
    writer.write("abc");
    writer.pad_to(8);
    writer.write("z");
    EXPECT_EQ(writer.size(), 9U);
    writer.commit();
  }
  const MappedFile file(path);
  ASSERT_EQ(file.bytes().size(), 9U);
  EXPECT_EQ(file.bytes()[2], std::byte{'c'});
  EXPECT_EQ(file.bytes()[7], std::byte{0});
  EXPECT_EQ(file.bytes()[8], std::byte{'z'});
}

TEST_F(FileTest, AbandonedWriterLeavesOldContentAndNoTemporary) {
  const auto path = directory_ / "a.txt";
  std::ofstream(path) << "old";
  {
    AtomicFileWriter writer(path);
    writer.write("new");
  }
  EXPECT_EQ(read_text_file(path, 100), "old");
  const auto entries = std::distance(std::filesystem::directory_iterator(directory_),
                                     std::filesystem::directory_iterator());
  EXPECT_EQ(entries, 1);
}

TEST_F(FileTest, ReportsWhatIsWrong) {
  EXPECT_EQ(code_of([&] { MappedFile file(directory_ / "none"); }), ErrorCode::kNotFound);
  EXPECT_EQ(code_of([&] { MappedFile file(directory_); }), ErrorCode::kInvalidArgument);
  std::ofstream(directory_ / "big") << std::string(11, 'x');
  EXPECT_EQ(code_of([&] { read_text_file(directory_ / "big", 10); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { AtomicFileWriter writer(directory_ / "no" / "such"); }),
            ErrorCode::kNotFound);
}

TEST_F(FileTest, FullDiskIsAnIoErrorAndADeviceIsNotReplaced) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  EXPECT_EQ(code_of([&] {
              AtomicFileWriter writer("/dev/full");
              writer.write("x");
              writer.commit();
            }),
            ErrorCode::kIo);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

}  // namespace
}  // namespace ds4
