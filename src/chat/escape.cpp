#include "chat/escape.h"

#include "chat/dsml_tag.h"

namespace ds4::chat {
namespace {

struct Entity {
  std::string_view text;
  char character;
};
constexpr Entity kEntities[] = {
    {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''},
};
constexpr std::string_view kEscapedOpen = "&lt;";
// Longer than any head: what of a text is looked at to tell whether a tag begins there.
constexpr std::size_t kHeadBytesMax = 64;

// Whether a DSML tag, in any spelling with a marker, begins at `text`, which starts with '<'.
bool begins_tag(std::string_view text) {
  const HeadMatch match = match_head(text.substr(0, kHeadBytesMax));
  return match.match == Match::kYes && match.head.is_marked;
}

std::string replace_tag_openings(std::string_view text, std::string_view replacement) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '<' && begins_tag(text.substr(i))) {
      out += replacement;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::string escape_attribute(std::string_view value) {
  std::string out;
  for (const char c : value) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string unescape_attribute(std::string_view value) {
  std::string out;
  out.reserve(value.size());
  while (!value.empty()) {
    const Entity* found = nullptr;
    for (const Entity& entity : kEntities) {
      if (value.substr(0, entity.text.size()) == entity.text) found = &entity;
    }
    out += found != nullptr ? found->character : value.front();
    value.remove_prefix(found != nullptr ? found->text.size() : 1);
  }
  return out;
}

std::string escape_payload(std::string_view value) {
  return replace_tag_openings(value, kEscapedOpen);
}

std::string unescape_payload(std::string_view value) {
  std::string out;
  out.reserve(value.size());
  while (!value.empty()) {
    if (match_escaped_head(value) == Match::kYes) {
      out += '<';
      value.remove_prefix(kEscapedOpen.size());
    } else {
      out += value.front();
      value.remove_prefix(1);
    }
  }
  return out;
}

std::string escape_json_payload(std::string_view json) {
  return replace_tag_openings(json, "\\u003c");
}

std::string escape_tool_result(std::string_view content) {
  constexpr std::string_view kClose = "</tool_result>";
  std::string out;
  out.reserve(content.size());
  for (std::size_t i = 0; i < content.size(); ++i) {
    if (content.substr(i, kClose.size()) == kClose) {
      out += kEscapedOpen;
    } else {
      out += content[i];
    }
  }
  return out;
}

}  // namespace ds4::chat
