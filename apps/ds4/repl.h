#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "conversation.h"
#include "kept_chats.h"
#include "line_reader.h"
#include "run.h"

namespace ds4::app {

// The chat in the terminal: lines in, turns and commands out.  Answers go to standard output,
// everything else to standard error.  Confined to the main thread.
class Repl {
 public:
  Repl(const Run& run, Conversation& conversation, LineReader& reader, KeptChats chats);

  // Until the end of the input or /quit.  Throws what ends the program; what ends one turn or one
  // command is told and the chat goes on.
  void loop();

  // One line, as it was typed.  False when it asks to leave.
  bool handle(std::string_view line);

 private:
  struct Command {
    std::string_view name;
    std::string_view argument;  // as shown by /help; empty: takes none
    std::string_view help;
    void (Repl::*action)(std::string_view argument);
  };
  static const Command* find_command(std::string_view name);

  void run_command(std::string_view line);
  void submit(std::string_view text);
  void say(const std::string& text) const;
  void set_think(chat::ThinkMode think);

  void help(std::string_view argument);
  void read_file(std::string_view argument);
  void context(std::string_view argument);
  void think(std::string_view argument);
  void think_max(std::string_view argument);
  void no_think(std::string_view argument);
  void power(std::string_view argument);
  void steer(std::string_view argument);
  void status(std::string_view argument);
  void save(std::string_view argument);
  void load(std::string_view argument);
  void list(std::string_view argument);
  void switch_to(std::string_view argument);
  void remove(std::string_view argument);
  void strip(std::string_view argument);
  void leave(std::string_view argument);

  const Run& run_;
  Conversation& conversation_;
  LineReader& reader_;
  KeptChats chats_;
  std::string name_;  // under which this conversation is kept; empty: it is not
  bool leaving_ = false;

  static const Command kCommands[];
};

}  // namespace ds4::app
