// A tokenizer.json from anywhere either becomes a tokenizer that gives bytes back or is refused
// with an Error.
//
// modules: tokenizer
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const ds4::tokenizer::Tokenizer tokenizer(
        ds4::tokenizer::parse_tokenizer_json(text, "fuzz input"));
    const std::string sample(text.substr(0, 256));
    if (tokenizer.decode(tokenizer.encode_text(sample)) != sample) std::abort();
    if (tokenizer.decode(tokenizer.encode_with_special(sample)) != sample) std::abort();
    for (const ds4::TokenId id : tokenizer.encode_text(sample)) {
      if (tokenizer.is_marker(id)) std::abort();
    }
  } catch (const ds4::Error&) {
    return 0;
  }
  return 0;
}
