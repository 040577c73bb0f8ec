#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/tensor_plan.h"
#include "gguf/writer.h"

namespace ds4::convert {

// Importance of the inputs of matrices, measured on text (the older .dat layout of llama.cpp): for
// each matrix one weight per column, for a stack of experts one set per expert.  Immutable.
class Imatrix {
 public:
  // An empty one: no tensor has importance.
  Imatrix() = default;
  // Throws Error(kBadFormat) when the file is damaged or holds values that are not finite or are
  // negative.
  explicit Imatrix(const std::filesystem::path& path);
  Imatrix(std::span<const std::byte> bytes, std::string name);

  bool empty() const { return entries_.empty(); }

  // The weights of one slab of `tensor`, [columns]; empty when the file has none for it.  Throws
  // Error(kBadFormat) when the file has the tensor in another size.
  std::span<const float> find(const PlannedTensor& tensor, std::uint64_t slab) const;

  // Writes where the importance came from; nothing when empty.
  void write_metadata(gguf::Writer& writer) const;

 private:
  void parse(std::span<const std::byte> bytes);
  std::span<const float> entry(std::string_view name) const;

  std::string name_;
  std::string dataset_;
  std::uint64_t chunk_count_ = 0;
  std::map<std::string, std::vector<float>, std::less<>> entries_;
};

}  // namespace ds4::convert
