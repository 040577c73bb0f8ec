#pragma once
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "chat/message.h"

namespace ds4::server {

// Remembers, by the ids of its calls, each block of calls exactly as the model wrote it, so that a
// conversation that comes back is the very text that is in memory.  Ids are unguessable and belong
// to a namespace.  The least recently used blocks are forgotten first.  Synchronised.
class ReplayMemory {
 public:
  ReplayMemory(std::size_t ids_max, std::size_t bytes_max)
      : ids_max_(ids_max),
        bytes_max_(bytes_max) {}

  struct Turn {
    std::string block;      // of calls, as the model wrote it
    std::string reasoning;  // before it
  };
  void remember(std::string_view name_space, const std::vector<std::string>& ids, Turn turn);
  // Sets exact_tool_block and the reasoning, which many clients drop or mangle, of every assistant
  // message whose calls are, all and in order, those of one remembered block.
  struct Counts {
    std::size_t exact = 0;      // blocks found
    std::size_t canonical = 0;  // written anew
  };
  Counts apply(std::string_view name_space, std::vector<chat::Message>& messages);

 private:
  struct Block {
    std::vector<std::string> keys;
    Turn turn;
  };
  using Blocks = std::list<std::shared_ptr<Block>>;

  void forget_oldest();

  const std::size_t ids_max_;
  const std::size_t bytes_max_;
  std::mutex mutex_;
  Blocks blocks_;  // the most recently used first
  std::unordered_map<std::string, Blocks::iterator> by_key_;
  std::size_t bytes_ = 0;
};

}  // namespace ds4::server
