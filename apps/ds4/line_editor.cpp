#include <clocale>
#include <cstdio>
#include <cwchar>
#include <string_view>
#include <utility>

#include <histedit.h>
#include <unistd.h>

#include "common/interrupt.h"
#include "common/output.h"
#include "line_reader.h"

namespace ds4::app {

namespace {

constexpr int kHistoryLines = 512;
constexpr std::string_view kPasteOn = "\x1b[?2004h";
constexpr std::string_view kPasteOff = "\x1b[?2004l";
constexpr std::wstring_view kPasteEnd = L"\x1b[201~";

// The editor works in characters, so the locale must say UTF-8; nothing else of it is taken.
void use_utf8_locale() {
  std::setlocale(LC_CTYPE, "");  // NOLINT(concurrency-mt-unsafe): before any thread starts
  if (MB_CUR_MAX < 4) std::setlocale(LC_CTYPE, "C.UTF-8");  // NOLINT(concurrency-mt-unsafe)
}

class LineEditor final : public LineReader {
 public:
  LineEditor(std::string prompt, const std::filesystem::path& history_file)
      : prompt_(std::move(prompt)),
        history_file_(history_file.string()) {
    use_utf8_locale();
    editor_ = ::el_init("ds4", stdin, stderr, stderr);
    history_ = ::history_init();
    HistEvent event;
    ::history(history_, &event, H_SETSIZE, kHistoryLines);
    ::history(history_, &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) ::history(history_, &event, H_LOAD, history_file_.c_str());
    ::el_set(editor_, EL_CLIENTDATA, this);
    ::el_set(editor_, EL_PROMPT, &LineEditor::prompt_of);
    ::el_set(editor_, EL_EDITOR, "emacs");
    ::el_set(editor_, EL_HIST, &::history, history_);
    ::el_set(editor_, EL_ADDFN, "ds4-paste", "Insert pasted text", &LineEditor::on_paste);
    ::el_set(editor_, EL_BIND, "\\e[200~", "ds4-paste", nullptr);
    ::el_source(editor_, nullptr);
  }

  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;
  ~LineEditor() override {
    ::el_end(editor_);
    ::history_end(history_);
  }

  Line read() override {
    Line line{.kind = LineKind::kText, .text = {}};
    shown_prompt_ = prompt_;
    for (;;) {
      const LineKind kind = read_piece(line.text);
      if (kind != LineKind::kText) return {.kind = kind, .text = {}};
      if (line.text.empty() || line.text.back() != '\\') break;
      line.text.back() = '\n';
      shown_prompt_ = "... ";
    }
    remember(line.text);
    return line;
  }

 private:
  LineKind read_piece(std::string& text) {
    write_note(kPasteOn);
    int count = 0;
    const char* const line = ::el_gets(editor_, &count);
    write_note(kPasteOff);
    if (line == nullptr || count <= 0) {
      // A signal ends the read just as the end of the input does.
      if (!InterruptGuard::requested()) return LineKind::kEnd;
      write_note("^C\n");
      return LineKind::kInterrupt;
    }
    std::string_view piece(line, static_cast<std::size_t>(count));
    if (piece.back() == '\n') piece.remove_suffix(1);
    text += piece;
    return LineKind::kText;
  }

  void remember(const std::string& text) {
    if (text.empty()) return;
    HistEvent event;
    ::history(history_, &event, H_ENTER, text.c_str());
    if (!history_file_.empty()) ::history(history_, &event, H_SAVE, history_file_.c_str());
  }

  static LineEditor& self(EditLine* editor) {
    LineEditor* reader = nullptr;
    ::el_get(editor, EL_CLIENTDATA, &reader);
    return *reader;
  }

  static char* prompt_of(EditLine* editor) { return self(editor).shown_prompt_.data(); }

  // Takes everything up to the end mark into the line; its line breaks stay line breaks.
  static unsigned char on_paste(EditLine* editor, int) {
    std::wstring text;
    for (wchar_t c = 0; ::el_wgetc(editor, &c) == 1;) {
      text.push_back(c == L'\r' ? L'\n' : c);
      if (text.size() < kPasteEnd.size()) continue;
      const std::size_t end = text.size() - kPasteEnd.size();
      if (text.compare(end, kPasteEnd.size(), kPasteEnd) != 0) continue;
      text.resize(end);
      break;
    }
    if (!text.empty()) ::el_winsertstr(editor, text.c_str());
    return CC_REFRESH;
  }

  std::string prompt_;
  std::string shown_prompt_;
  std::string history_file_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
};

}  // namespace

std::unique_ptr<LineReader> make_line_editor(const std::string& prompt,
                                             const std::filesystem::path& history_file) {
  return std::make_unique<LineEditor>(prompt, history_file);
}

}  // namespace ds4::app
