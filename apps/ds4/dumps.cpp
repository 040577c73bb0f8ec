#include "dumps.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

#include "base/file.h"
#include "base/utf8.h"
#include "sample/sampler.h"

namespace ds4::app {

namespace {

// Nine significant digits tell any two f32 apart.
std::string json_number(double value) {
  return std::isfinite(value) ? fmt::format("{:.9g}", value) : "null";
}

void append_json_char(std::string& out, unsigned char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      if (c < 0x20 || c == 0x7F)
        out += fmt::format("\\u{:04x}", c);
      else
        out.push_back(static_cast<char>(c));
  }
}

std::string json_token(const tokenizer::Tokenizer& tokenizer, TokenId token) {
  const std::string_view bytes = tokenizer.token_bytes(token);
  std::string list;
  for (const char byte : bytes)
    list += fmt::format("{}{}", list.empty() ? "" : ",", static_cast<unsigned char>(byte));
  return fmt::format(R"({{"id":{},"text":{},"bytes":[{}]}})", token.value(), json_token_text(bytes),
                     list);
}

std::string json_step(const tokenizer::Tokenizer& tokenizer,
                      std::uint32_t step,
                      TokenId selected,
                      std::span<const sample::TokenLogprob> top) {
  std::string text = fmt::format(R"({{"step":{},"selected":{},"top_logprobs":[)", step,
                                 json_token(tokenizer, selected));
  for (std::size_t i = 0; i < top.size(); ++i) {
    text += fmt::format(R"({}{{"token":{},"logit":{},"logprob":{}}})", i == 0 ? "" : ",",
                        json_token(tokenizer, top[i].token), json_number(top[i].logit),
                        json_number(top[i].logprob));
  }
  return text + "]}";
}

std::string printable(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const DecodedCodePoint code_point = decode_code_point(bytes);
    const auto first = static_cast<unsigned char>(bytes.front());
    if (first == '\n')
      text += "\\n";
    else if (first == '\t')
      text += "\\t";
    else if (first == '\\')
      text += "\\\\";
    else if (!code_point.valid || first < 0x20 || first == 0x7F)
      text += fmt::format("\\x{:02x}", first);
    else
      text += bytes.substr(0, code_point.bytes);
    bytes.remove_prefix(code_point.bytes);
  }
  return text;
}

}  // namespace

std::string json_token_text(std::string_view bytes) {
  const bool is_text = is_valid_utf8(bytes);
  std::string out = "\"";
  for (const char byte : bytes) {
    const auto c = static_cast<unsigned char>(byte);
    if (!is_text && c >= 0x80)
      out += fmt::format("\\u{:04x}", c);
    else
      append_json_char(out, c);
  }
  return out + "\"";
}

std::string token_dump(const tokenizer::Tokenizer& tokenizer, std::span<const TokenId> tokens) {
  std::string text = "[";
  for (std::size_t i = 0; i < tokens.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", tokens[i].value());
  text += "]\n";
  for (const TokenId token : tokens)
    text += fmt::format("{:>6}  {}\n", token.value(), printable(tokenizer.token_bytes(token)));
  return text;
}

void dump_logprobs(const std::filesystem::path& path,
                   Session& session,
                   const LogprobDumpOptions& options) {
  const tokenizer::Tokenizer& tokenizer = session.engine().tokenizer();
  AtomicFileWriter file(path);
  file.write(fmt::format(R"({{"source":"ds4","prompt_tokens":{},"ctx":{},"top_k":{},"steps":[)",
                         session.length(), session.context(), options.top_k));
  sample::Sampler sampler(session.logits().size(), 1);
  const std::uint32_t room = session.context() - session.length();
  const std::uint32_t step_count = std::min(options.token_max, room);
  for (std::uint32_t step = 0; step < step_count; ++step) {
    const TokenId selected = sample::argmax(session.logits());
    const auto top = sampler.top_logprobs(session.logits(), options.top_k);
    file.write(step == 0 ? "\n" : ",\n");
    file.write(json_step(tokenizer, step, selected, top));
    if (selected == tokenizer.eos()) break;
    if (step + 1 < step_count) session.eval(selected);
  }
  file.write("\n]}\n");
  file.commit();
}

void dump_logits(const std::filesystem::path& path, const Session& session) {
  const auto logits = session.logits();
  const TokenId best = sample::argmax(logits);
  AtomicFileWriter file(path);
  file.write(fmt::format(
      R"({{"source":"ds4","prompt_tokens":{},"ctx":{},"vocab":{},"argmax_token":{},"argmax_logit":{},"logits":[)",
      session.length(), session.context(), logits.size(), best.value(),
      json_number(logits[static_cast<std::size_t>(best.value())])));
  for (std::size_t i = 0; i < logits.size(); ++i)
    file.write(fmt::format("{}{}", i == 0 ? "" : ",", json_number(logits[i])));
  file.write("]}\n");
  file.commit();
}

}  // namespace ds4::app
