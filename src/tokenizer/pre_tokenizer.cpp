#include "tokenizer/pre_tokenizer.h"

#include "base/utf8.h"

namespace ds4::tokenizer {
namespace {

constexpr std::uint32_t kNumberGroupMax = 3;  // code points; the first split is \p{N}{1,3}

constexpr bool is_ascii_letter(std::uint32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

constexpr bool is_word(CharClass c) {
  return c == CharClass::kLetter || c == CharClass::kMark;
}

constexpr bool is_space(CharClass c) {
  return c == CharClass::kSpace || c == CharClass::kBreak;
}

}  // namespace

PieceScanner::PieceScanner(std::string_view text) : text_(text), classes_(unicode_classes()) {}

PieceScanner::Char PieceScanner::peek(std::size_t offset) const {
  if (offset >= text_.size()) return {CharClass::kEnd, 0, 0};
  const auto first = static_cast<std::uint8_t>(text_[offset]);
  Char c{CharClass::kOther, first, 1};
  if (first < 0x80) {
    c.char_class = classes_.of(first);
  } else if (const DecodedCodePoint d = decode_code_point(text_.substr(offset)); d.valid) {
    c = {classes_.of(d.value), d.value, d.bytes};
  }
  const Region region = is_cjk_or_kana(c.code_point) && c.bytes > 1 ? Region::kCjk : Region::kPlain;
  if (c.char_class == CharClass::kNumber || region != region_) c.char_class = CharClass::kEnd;
  return c;
}

std::string_view PieceScanner::next() {
  if (offset_ >= text_.size()) return {};
  const std::size_t begin = offset_;
  // Where the current region ends, the next one begins: a number group or the other region.
  if (peek(begin).char_class == CharClass::kEnd) {
    offset_ = number_end(begin);
    if (offset_ > begin) return text_.substr(begin, offset_ - begin);
    region_ = region_ == Region::kPlain ? Region::kCjk : Region::kPlain;
  }
  offset_ = match_end(begin);
  if (offset_ == begin) {  // rule e: characters that no rule takes, as one piece
    do {
      offset_ += peek(offset_).bytes;
    } while (peek(offset_).char_class != CharClass::kEnd && match_end(offset_) == offset_);
  }
  return text_.substr(begin, offset_ - begin);
}

std::size_t PieceScanner::number_end(std::size_t offset) const {
  for (std::uint32_t count = 0; count < kNumberGroupMax && offset < text_.size(); ++count) {
    const DecodedCodePoint c = decode_code_point(text_.substr(offset));
    if (!c.valid || classes_.of(c.value) != CharClass::kNumber) break;
    offset += c.bytes;
  }
  return offset;
}

std::size_t PieceScanner::match_end(std::size_t offset) const {
  const Char first = peek(offset);
  const Char second = peek(offset + first.bytes);
  const std::size_t after_first = offset + first.bytes;
  // a: ASCII punctuation and the ASCII letters behind it
  if (first.char_class == CharClass::kSymbol && first.code_point < 0x80 &&
      second.char_class == CharClass::kLetter && is_ascii_letter(second.code_point)) {
    std::size_t end = after_first;
    while (end < text_.size() && is_ascii_letter(static_cast<std::uint8_t>(text_[end])))
      ++end;
    return end;
  }
  // b: letters and marks, with at most one foreign character before them
  if (is_word(first.char_class)) return letters_end(offset);
  if (first.char_class != CharClass::kBreak && first.char_class != CharClass::kSymbol &&
      is_word(second.char_class)) {
    return letters_end(after_first);
  }
  // c: symbols, with at most one space before them and the line breaks behind
  if (first.char_class == CharClass::kSymbol) return symbols_end(offset);
  if (first.code_point == ' ' && second.char_class == CharClass::kSymbol) {
    return symbols_end(after_first);
  }
  // d: white space
  if (is_space(first.char_class)) return space_end(offset);
  return offset;
}

std::size_t PieceScanner::letters_end(std::size_t offset) const {
  for (Char c = peek(offset); is_word(c.char_class); c = peek(offset))
    offset += c.bytes;
  return offset;
}

std::size_t PieceScanner::symbols_end(std::size_t offset) const {
  Char c = peek(offset);
  for (; c.char_class == CharClass::kSymbol; c = peek(offset))
    offset += c.bytes;
  for (; c.char_class == CharClass::kBreak; c = peek(offset))
    offset += c.bytes;
  return offset;
}

std::size_t PieceScanner::space_end(std::size_t offset) const {
  std::size_t end = offset;
  std::size_t last = offset;              // where the last character of the run begins
  std::size_t after_last_break = offset;  // just behind the last line break
  Char c = peek(end);
  for (; is_space(c.char_class); c = peek(end)) {
    last = end;
    end += c.bytes;
    if (c.char_class == CharClass::kBreak) after_last_break = end;
  }
  if (after_last_break > offset) return after_last_break;
  // The last space belongs to what follows it, unless nothing does or it is the only one.
  return c.char_class == CharClass::kEnd || last == offset ? end : last;
}

}  // namespace ds4::tokenizer
