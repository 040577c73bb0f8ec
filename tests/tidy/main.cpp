// Checks the tree itself: who may include whom, how long files and functions grow, which words may
// not appear, whether documents point at what exists.  Runs as a test, so that a layering mistake
// fails where every other mistake fails.
//
//   ds4_tidy ROOT LAYERS     LAYERS is the file that CMake writes from the ds4_module() calls
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/tidy/rules.h"

namespace fs = std::filesystem;

namespace ds4::tidy {
namespace {

constexpr const char* kRoots[] = {"src",  "apps",    "include", "tests", "bench",
                                  "docs", "scripts", "cmake",   ".ci",   "packaging"};
constexpr const char* kTextSuffixes[] = {".h",  ".cpp", ".c",   ".cu",   ".cuh", ".cmake",
                                         ".md", ".sh",  ".txt", ".json", ".yml", ".py"};

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool is_text(const fs::path& path) {
  const std::string suffix = path.extension().string();
  return suffix.empty() || std::find(std::begin(kTextSuffixes), std::end(kTextSuffixes), suffix) !=
                               std::end(kTextSuffixes);
}

// Data of the tests, and packages of others that a test has installed.  Held to nothing.
bool is_data(const std::string& path) {
  return path.find("/node_modules/") != std::string::npos ||
         path.find("/cases/") != std::string::npos || path.find("/seeds/") != std::string::npos ||
         path.find("/data/") != std::string::npos;
}

bool is_source(const std::string& path) {
  for (const char* suffix : {".h", ".cpp", ".cu", ".cuh"}) {
    const std::string_view tail = suffix;
    if (path.size() > tail.size() &&
        path.compare(path.size() - tail.size(), tail.size(), tail) == 0)
      return true;
  }
  return false;
}

std::vector<SourceFile> read_tree(const fs::path& root) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  for (const char* folder : kRoots) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.is_regular_file()) paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<SourceFile> files;
  for (const fs::path& path : paths) {
    const std::string relative = fs::relative(path, root).generic_string();
    if (is_text(path) && !is_data(relative)) files.push_back({relative, read_file(path)});
  }
  return files;
}

void check_links(const SourceFile& file, const fs::path& root, Violations& out) {
  for (const std::string& link : relative_links(file.text)) {
    if (!fs::exists(root / fs::path(file.path).parent_path() / link))
      out.push_back({file.path, 1, "links to " + link + ", which does not exist"});
  }
}

void check_cited_documents(const SourceFile& file, const fs::path& root, Violations& out) {
  for (const auto& [document, line] : cited_documents(file.text)) {
    if (!fs::exists(root / document))
      out.push_back({file.path, line, "names " + document + ", which does not exist"});
  }
}

// A path of the machine that the work happened on says nothing to anybody else.
void check_machine_paths(const SourceFile& file, const std::string& root, Violations& out) {
  if (root.size() > 4 && file.text.find(root) != std::string::npos)
    out.push_back({file.path, 1, "names the folder of this checkout, " + root});
}

int check_tree(const fs::path& root, const fs::path& layers_path) {
  Layers layers = parse_layers(read_file(layers_path));
  for (const auto& entry : fs::directory_iterator(root / "src"))
    add_declared_module(read_file(entry.path() / "CMakeLists.txt"), layers);
  const ModelPage model_page = parse_model_page(read_file(root / "docs/model.md"));
  std::vector<Exemption> exemptions =
      parse_exemptions(read_file(root / "tests/tidy/exemptions.txt"));
  const std::string root_name = fs::absolute(root).lexically_normal().string();

  Violations found;
  check_layers(layers, found);
  const std::vector<SourceFile> files = read_tree(root);
  check_slow_headers(files, found);
  for (const SourceFile& file : files) {
    check_words(file, found);
    check_machine_paths(file, root_name, found);
    if (file.path.size() > 3 && file.path.substr(file.path.size() - 3) == ".md")
      check_links(file, root, found);
    if (!is_source(file.path)) continue;
    check_includes(file, layers, found);
    check_sizes(file, exemptions, found);
    if (file.path.rfind("tests/tidy/", 0) == 0) continue;  // its examples cite what is not there
    check_citations(file, model_page, found);
    check_cited_documents(file, root, found);
  }
  check_exemptions_used(exemptions, found);
  for (const Violation& violation : found)
    std::printf("%s:%zu: error: %s\n", violation.path.c_str(), violation.line,
                violation.message.c_str());
  std::printf("%zu files of %zu modules checked, %zu violations\n", files.size(), layers.size(),
              found.size());
  return found.empty() && !layers.empty() && !files.empty() ? 0 : 1;
}

}  // namespace
}  // namespace ds4::tidy

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: ds4_tidy ROOT LAYERS\n");
    return 2;
  }
  return ds4::tidy::check_tree(argv[1], argv[2]);
}
