// Hugging Face tokenizer.json: fields used are added_tokens, normalizer, pre_tokenizer and model.
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <zlib.h>

#include "base/error.h"
#include "tokenizer/vocabulary.h"

namespace ds4::tokenizer {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kFileBytesMax = std::size_t{256} << 20;
constexpr std::size_t kNestingMax = 32;

// The three splits that PieceScanner carries out.
constexpr const char* kSplits[] = {
    "\\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    ("[!\"#$%&'()*+,\\-./"
     ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]"
     "+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
};

class Loader {
 public:
  explicit Loader(std::string_view name) : name_(name) {}

  Vocabulary load(std::string_view text) {
    const Json root = parse(text);
    check_normalizer(root);
    check_pre_tokenizer(root);
    const Json& model = member(root, "model");
    check_model(model);
    add_vocabulary(member(model, "vocab"));
    if (const auto added = root.find("added_tokens"); added != root.end()) add_markers(*added);
    add_merges(member(model, "merges"));
    return std::move(vocabulary_);
  }

 private:
  [[noreturn]] void bad(const std::string& problem) const {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("{} is no usable tokenizer: {}", name_, problem));
  }
  [[noreturn]] void unsupported(const std::string& problem) const {
    throw Error(ErrorCode::kUnsupported, fmt::format("{} is not supported: {}", name_, problem));
  }

  Json parse(std::string_view text) const {
    const Json::parser_callback_t limit = [this](int depth, Json::parse_event_t, Json&) {
      if (depth > static_cast<int>(kNestingMax)) bad("its JSON is nested too deeply");
      return true;
    };
    if (text.find('\0') != std::string_view::npos) bad("it contains a NUL byte");
    try {
      Json root = Json::parse(text, limit);
      if (!root.is_object()) bad("it is not a JSON object");
      return root;
    } catch (const Json::exception& e) {
      bad(e.what());
    }
  }

  const Json& member(const Json& object, const char* key) const {
    if (!object.is_object() || !object.contains(key)) bad(fmt::format("it has no '{}'", key));
    return object.at(key);
  }

  void check_normalizer(const Json& root) const {
    const auto normalizer = root.find("normalizer");
    if (normalizer == root.end() || normalizer->is_null()) return;
    const bool is_empty = normalizer->is_object() && normalizer->contains("normalizers") &&
                          normalizer->at("normalizers").empty();
    if (!is_empty) unsupported("it has a normalizer; expected none");
  }

  void check_pre_tokenizer(const Json& root) const {
    const Json& steps = member(member(root, "pre_tokenizer"), "pretokenizers");
    const std::size_t split_count = std::size(kSplits);
    bool same = steps.is_array() && steps.size() == split_count + 1;
    for (std::size_t i = 0; same && i < split_count; ++i) {
      const Json& step = steps[i];
      const Json pattern = step.is_object() ? step.value("pattern", Json()) : Json();
      same = step.is_object() && step.value("type", Json()) == "Split" &&
             step.value("behavior", Json()) == "Isolated" && pattern.is_object() &&
             pattern.value("Regex", Json()) == kSplits[i];
    }
    same = same && steps.back().is_object() && steps.back().value("type", Json()) == "ByteLevel" &&
           steps.back().value("add_prefix_space", Json(false)) == false;
    if (!same) unsupported("its pre-tokenizer is not DeepSeek's three splits and byte level");
  }

  void check_model(const Json& model) const {
    if (!model.is_object()) bad("'model' is not an object");
    if (model.value("type", Json("BPE")) != "BPE") unsupported("its model is not BPE");
    const auto is_off = [&](const char* key) {
      const auto value = model.find(key);
      if (value == model.end() || value->is_null() || *value == false) return true;
      return value->is_string() && value->get_ref<const std::string&>().empty();
    };
    for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix",
                            "end_of_word_suffix", "byte_fallback", "ignore_merges"}) {
      if (!is_off(key)) unsupported(fmt::format("its model sets '{}'", key));
    }
  }

  void place(const Json& id_value, const std::string& text, TokenKind kind) {
    if (!id_value.is_number_unsigned()) bad(fmt::format("the id of '{}' is not a number", text));
    const auto id = id_value.get<std::uint64_t>();
    if (id >= kVocabularyTokensMax) bad(fmt::format("token '{}' has the id {}", text, id));
    if (text.size() > kTokenBytesMax) bad(fmt::format("token {} is too long", id));
    if (id >= vocabulary_.tokens.size()) {
      vocabulary_.tokens.resize(id + 1);
      vocabulary_.kinds.resize(id + 1, TokenKind::kUnused);
    }
    const bool is_taken = vocabulary_.kinds[id] != TokenKind::kUnused;
    if (is_taken && vocabulary_.tokens[id] != text) {
      bad(fmt::format("the id {} is given to '{}' and '{}'", id, vocabulary_.tokens[id], text));
    }
    vocabulary_.tokens[id] = text;
    vocabulary_.kinds[id] = kind;
  }

  void add_vocabulary(const Json& vocab) {
    if (!vocab.is_object()) bad("'vocab' is not an object");
    for (const auto& [text, id] : vocab.items())
      place(id, text, TokenKind::kText);
  }

  void add_markers(const Json& added) {
    if (!added.is_array()) bad("'added_tokens' is not a list");
    for (const Json& token : added) {
      const Json& content = member(token, "content");
      if (!content.is_string()) bad("an added token has no text");
      for (const char* key : {"single_word", "lstrip", "rstrip"}) {
        if (token.value(key, Json(false)) != false) {
          unsupported(fmt::format("an added token sets '{}'", key));
        }
      }
      const bool is_control = token.value("special", Json(false)) == true;
      place(member(token, "id"), content.get<std::string>(),
            is_control ? TokenKind::kControl : TokenKind::kAdded);
    }
  }

  void add_merges(const Json& merges) {
    if (!merges.is_array()) bad("'merges' is not a list");
    vocabulary_.merges.reserve(merges.size());
    for (const Json& merge : merges) {
      if (merge.is_string()) {
        vocabulary_.merges.push_back(merge.get<std::string>());
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        vocabulary_.merges.push_back(merge[0].get<std::string>() + " " +
                                     merge[1].get<std::string>());
      } else {
        bad(fmt::format("merge {} is not a pair of tokens", vocabulary_.merges.size()));
      }
    }
  }

  std::string_view name_;
  Vocabulary vocabulary_;
};

struct GzCloser {
  void operator()(gzFile_s* file) const { gzclose(file); }
};

}  // namespace

Vocabulary parse_tokenizer_json(std::string_view text, std::string_view name) {
  return Loader(name).load(text);
}

Vocabulary load_tokenizer_json(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    throw Error(ErrorCode::kIo, fmt::format("{} is a directory, not a file", path.string()));
  }
  errno = 0;
  const std::unique_ptr<gzFile_s, GzCloser> file(gzopen(path.c_str(), "rb"));
  if (!file) throw_errno("opening", path.string());
  std::string text;
  std::string part(std::size_t{1} << 20, '\0');
  for (;;) {
    const int got = gzread(file.get(), part.data(), static_cast<unsigned>(part.size()));
    if (got < 0) {
      int code = 0;
      const char* reason = gzerror(file.get(), &code);
      throw Error(ErrorCode::kBadFormat, fmt::format("reading {}: {}", path.string(), reason));
    }
    if (got == 0) break;
    text.append(part, 0, static_cast<std::size_t>(got));
    if (text.size() > kFileBytesMax) {
      throw Error(ErrorCode::kBadFormat, fmt::format("{} unpacks to more than {} MiB",
                                                     path.string(), kFileBytesMax >> 20));
    }
  }
  return parse_tokenizer_json(text, path.string());
}

}  // namespace ds4::tokenizer
