#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "chat/dsml_tag.h"
#include "chat/response_event.h"

namespace ds4::chat {

// Assembles the JSON object of one call's arguments from its parameters as they arrive.  String
// values pass through as they grow; JSON values are held until they are whole, because only then is
// it known whether they are JSON, unless that is known beforehand.  Confined to one thread.
class ArgumentBuilder {
 public:
  // `unwraps`: a lone parameter `arguments` that holds an object stands for the object itself.
  explicit ArgumentBuilder(bool unwraps) : unwraps_(unwraps), frames_(1) {}

  // From here on JSON values are known to be JSON: they pass through as they grow.
  void trust_json() { trusts_json_ = true; }

  enum class Type { kString, kJson };
  void begin_value(std::string_view name, Type type);
  // More of the open value.
  void append(std::string_view text);
  // Closes the open value; returns false when the same parameter came before with another value.
  bool end_value();

  // The open value, nothing of which has been appended, turns out to be an object of parameters.
  // Returns false beyond the nesting limit or where the parameter came before.
  bool open_object();
  void close_object();
  bool in_object() const { return frames_.size() > 1; }

  // Closes whatever is open and the object itself.
  void finish();

  // The JSON that is new since the last call.
  std::string take();
  // In order, the parameters that were announced as JSON and were not.
  std::vector<std::string>& invalid_json() { return invalid_json_; }
  RepairSet repairs() const { return repairs_; }

 private:
  static constexpr std::size_t kNestingMax = 16;
  struct Frame {
    std::unordered_map<std::string, std::string> values;  // JSON text by name
  };

  void write_key(std::string_view name);
  std::string value_json();
  void flush_wrapper();

  bool unwraps_;
  bool trusts_json_ = false;
  std::vector<Frame> frames_;  // the call's object and the nested ones that are open
  std::string out_;
  bool is_open_ = false;  // the call's object has its '{'
  bool is_first_ = true;  // nothing is in the innermost object yet
  std::string name_;      // of the open value
  Type type_ = Type::kJson;
  std::string value_;          // its text so far
  bool holds_ = false;         // its text may not be written yet
  bool is_streaming_ = false;  // its beginning is written
  bool is_repeated_ = false;
  bool has_wrapper_ = false;  // wrapper_ waits to be told whether it is alone
  std::string wrapper_;       // its value as JSON
  std::string wrapper_text_;  // its value as written
  std::vector<std::string> invalid_json_;
  RepairSet repairs_;
};

}  // namespace ds4::chat
