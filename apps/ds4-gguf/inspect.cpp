// ds4-gguf inspect: what a GGUF file holds.
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "commands.h"
#include "gguf/reader.h"

namespace {

constexpr std::uint64_t kArrayShown = 8;
constexpr std::size_t kTextShown = 64;

struct InspectOptions {
  std::string file;
  bool tensors = false;
  bool metadata = false;
};

// Text as one printable line: control bytes escaped, long text cut.
std::string shown(std::string_view text) {
  std::string line;
  for (const char c : text.substr(0, kTextShown)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      line += c;
    }
  }
  if (text.size() > kTextShown) line += fmt::format("... ({} bytes)", text.size());
  return line;
}

std::string describe(const ds4::gguf::Value& value);

std::string describe_array(const ds4::gguf::ArrayValue& array) {
  std::string line =
      fmt::format("[{} {}]", array.count, ds4::gguf::value_type_name(array.element_type));
  if (array.element_type == ds4::gguf::ValueType::kArray) return line;
  const std::uint64_t shown_count = std::min(array.count, kArrayShown);
  if (array.element_type == ds4::gguf::ValueType::kString) {
    std::uint64_t index = 0;
    for (const std::string_view text : ds4::gguf::StringArray(array)) {
      if (index++ == shown_count) break;
      line += fmt::format(" \"{}\"", shown(text));
    }
  } else {
    for (std::uint64_t i = 0; i < shown_count; ++i)
      line += " " + describe(array.at(i));
  }
  if (array.count > shown_count) line += " ...";
  return line;
}

std::string describe(const ds4::gguf::Value& value) {
  struct Describe {
    std::string operator()(std::uint64_t number) const { return fmt::to_string(number); }
    std::string operator()(std::int64_t number) const { return fmt::to_string(number); }
    std::string operator()(double number) const { return fmt::format("{:g}", number); }
    std::string operator()(bool truth) const { return truth ? "true" : "false"; }
    std::string operator()(std::string_view text) const {
      return fmt::format("\"{}\"", shown(text));
    }
    std::string operator()(const ds4::gguf::ArrayValue& array) const {
      return describe_array(array);
    }
  };
  return std::visit(Describe{}, value.data);
}

void print_metadata(const ds4::gguf::Reader& reader) {
  for (const std::string_view key : reader.keys()) {
    const ds4::gguf::Value& value = *reader.find(key);
    fmt::print("{:<54} {:<7} {}\n", shown(key), ds4::gguf::value_type_name(value.type),
               describe(value));
  }
}

void print_tensors(const ds4::gguf::Reader& reader) {
  for (const ds4::gguf::TensorInfo& tensor : reader.tensors()) {
    fmt::print("{:<44} {:<8} {:<22} {:>14} bytes at {}\n", shown(tensor.name), tensor.type_name(),
               tensor.shape_text(), tensor.bytes.size(), tensor.offset);
  }
}

void print_summary(const ds4::gguf::Reader& reader) {
  struct Sum {
    std::uint64_t tensors = 0;
    std::uint64_t values = 0;
    std::uint64_t bytes = 0;
  };
  std::map<std::string, Sum> by_type;
  for (const ds4::gguf::TensorInfo& tensor : reader.tensors()) {
    Sum& sum = by_type[tensor.type_name()];
    ++sum.tensors;
    sum.values += tensor.value_count();
    sum.bytes += tensor.bytes.size();
  }
  fmt::print("{}: {} bytes, {} metadata keys, {} tensors, data at {} (alignment {})\n",
             reader.name(), reader.file_bytes(), reader.keys().size(), reader.tensors().size(),
             reader.data_offset(), reader.alignment());
  for (const auto& [type, sum] : by_type)
    fmt::print("  {:<8} {:>6} tensors {:>16} values {:>16} bytes\n", type, sum.tensors, sum.values,
               sum.bytes);
}

void inspect(const InspectOptions& options) {
  const ds4::gguf::Reader reader{std::filesystem::path(options.file)};
  const bool everything = !options.tensors && !options.metadata;
  if (options.metadata || everything) print_metadata(reader);
  if (options.tensors || everything) print_tensors(reader);
  if (everything) print_summary(reader);
  if (std::fflush(stdout) != 0) ds4::throw_errno("cannot write", "standard output");
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  const auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand("inspect", "Print what a GGUF file holds");
  command->add_option("FILE", options->file, "the GGUF file")->required();
  command->add_flag("--metadata", options->metadata, "only the metadata");
  command->add_flag("--tensors", options->tensors, "only the tensors");
  command->callback([options] { inspect(*options); });
}
