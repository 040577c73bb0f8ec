#include "tests/tidy/rules.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "tests/tidy/source_text.h"

namespace ds4::tidy {
namespace {

std::string messages(const Violations& violations) {
  std::string all;
  for (const Violation& violation : violations)
    all += std::to_string(violation.line) + ": " + violation.message + "\n";
  return all;
}

std::string includes_of(const std::string& path, const std::string& text) {
  Violations out;
  check_includes({path, text}, parse_layers("base: \ngguf: base;tensor\nserver: base\n"), out);
  return messages(out);
}

std::string words_of(const std::string& path, const std::string& text) {
  Violations out;
  check_words({path, text}, out);
  return messages(out);
}

TEST(SourceTextTest, BlanksCommentsAndLiteralsAndKeepsLines) {
  const std::string text = "a; // {\n/* {\n */ b(\"{\\\"\"); c('{'); R\"x({)\")x\"; 1'000 {";
  const std::string code = blank_comments_and_literals(text);
  EXPECT_EQ(code.size(), text.size());
  EXPECT_EQ(lines_of(code).size(), lines_of(text).size());
  EXPECT_EQ(std::count(code.begin(), code.end(), '{'), 1);
  EXPECT_NE(code.find("1'000 {"), std::string::npos);
}

TEST(SourceTextTest, FindsFunctionsThroughNamespacesAndClasses) {
  const auto functions = functions_of(
      "namespace a {\nclass B : public C {\n  int f() const {\n    if (x) {\n    }\n  }\n};\n"
      "B::B(int i)\n    : i_(i) {\n}\nenum class E { kA };\n#define M(x) {\nint g() { return 1; "
      "}\n}\n");
  ASSERT_EQ(functions.size(), 3U);
  EXPECT_EQ(functions[0].name, "f");
  EXPECT_EQ(functions[0].first_line, 3U);
  EXPECT_EQ(functions[0].line_count, 3U);
  EXPECT_EQ(functions[1].name, "B::B");
  EXPECT_EQ(functions[1].line_count, 1U);
  EXPECT_EQ(functions[2].name, "g");
  EXPECT_EQ(functions[2].line_count, 0U);
}

TEST(SourceTextTest, WordsAreWhole) {
  EXPECT_TRUE(contains_word("std::printf(x)", "printf("));
  EXPECT_FALSE(contains_word("snprintf(x)", "printf("));
  EXPECT_FALSE(contains_word("kMARKED", "MARK"));  // part of a longer word
}

TEST(IncludeRuleTest, AllowsOwnModuleItsDepsAndThePublicFace) {
  EXPECT_EQ(includes_of("src/gguf/a.cpp",
                        "#include \"gguf/a.h\"\n#include \"base/error.h\"\n#include \"ds4.h\"\n"
                        "#include <vector>\n"),
            "");
}

TEST(IncludeRuleTest, RefusesWhatDepsDoNotName) {
  EXPECT_EQ(includes_of("src/gguf/a.cpp", "\n#include \"engine/session.h\"\n"),
            "2: gguf may not include engine/session.h: its ds4_module() does not name engine in "
            "DEPS\n");
  EXPECT_NE(includes_of("src/base/sub/a.cpp", "#include \"gguf/a.h\"\n"), "");
  EXPECT_NE(includes_of("src/stray/a.cpp", ""), "");
  EXPECT_NE(includes_of("src/gguf/a.cpp", "#include \"a.h\"\n"), "");
}

TEST(IncludeRuleTest, LibrariesStayAtHome) {
  EXPECT_NE(includes_of("src/gguf/a.cpp", "#include <cuda_runtime.h>\n"), "");
  EXPECT_NE(includes_of("src/gguf/a.cpp", "#include <boost/asio.hpp>\n"), "");
  EXPECT_EQ(includes_of("src/server/a.cpp", "#include <boost/asio.hpp>\n"), "");
}

TEST(IncludeRuleTest, SlowHeadersStayInTheirModule) {
  const SourceFile slow{"src/gguf/json.h", "#include <nlohmann/json.hpp>\n"};
  const auto check = [&](const char* path) {
    Violations out;
    check_slow_headers({slow, {path, "#include \"gguf/json.h\"\n"}}, out);
    return out.size();
  };
  EXPECT_EQ(check("src/gguf/a.cpp"), 0U);
  EXPECT_EQ(check("src/gguf/a.h"), 1U);
  EXPECT_EQ(check("src/server/a.cpp"), 1U);
}

TEST(IncludeRuleTest, TheStoreMeetsTheEngineInOnePlace) {
  const auto check = [](const char* path) {
    Violations out;
    check_includes({path, "#include \"engine/session.h\"\n"}, parse_layers("kvstore: engine\n"),
                   out);
    return out.size();
  };
  EXPECT_EQ(check("src/kvstore/engine_state.cpp"), 0U);
  EXPECT_EQ(check("src/kvstore/store.cpp"), 1U);
}

TEST(IncludeRuleTest, HeadersAreGuarded) {
  EXPECT_EQ(includes_of("src/gguf/a.h", "int a;\n"), "1: a header starts with #pragma once\n");
}

TEST(IncludeRuleTest, TestSupportIsForTests) {
  EXPECT_EQ(includes_of("src/gguf/a_test.cpp", "#include \"tests/support/x.h\"\n"), "");
  EXPECT_NE(includes_of("src/gguf/a.cpp", "#include \"tests/support/x.h\"\n"), "");
}

TEST(LayerRuleTest, HoldsTheSeams) {
  const auto check = [](const char* text) {
    Violations out;
    check_layers(parse_layers(text), out);
    return out.size();
  };
  EXPECT_EQ(check("cpu: backend\nruntime: cpu;engine\nengine: backend\n"), 0U);
  EXPECT_EQ(check("engine: backend;cpu\n"), 1U);
  EXPECT_EQ(check("server: engine;gguf\n"), 1U);
}

TEST(LayerRuleTest, KnowsModulesThatThisBuildLeavesOut) {
  Layers layers = parse_layers("base: \n");
  add_declared_module("if(X)\nds4_module(cuda DEPS base tensor\n  SOURCES a.cu LINK b)\n", layers);
  EXPECT_EQ(layers["cuda"], (std::set<std::string>{"base", "tensor"}));
  add_declared_module("ds4_module(base DEPS tensor)", layers);
  EXPECT_TRUE(layers["base"].empty());
}

TEST(WordRuleTest, RefusesUnfinishedMarksEverywhere) {
  const std::string mark = std::string("TO") + "DO";
  EXPECT_NE(words_of("docs/a.md", "one\ntwo " + mark + ": x\n"), "");
  EXPECT_NE(words_of("src/base/a.cpp", "// " + mark + "\n"), "");
  EXPECT_EQ(words_of("src/base/a.cpp", "// done\n"), "");
}

TEST(WordRuleTest, RefusesTrackerNumbers) {
  EXPECT_NE(words_of("src/base/a.cpp",
                     "// see issue "
                     "12\n"),
            "");
  EXPECT_NE(words_of("docs/a.md",
                     "fixed by PR #"
                     "3\n"),
            "");
  EXPECT_EQ(words_of("docs/a.md", "an issue of style; APR 12\n"), "");
}

TEST(WordRuleTest, LibrariesNeitherPrintNorExitNorReadTheEnvironment) {
  for (const char* code : {"std::cout << 1;", "std::printf(\"\");", "std::exit(1);",
                           "std::getenv(\"A\");", "using namespace std;"})
    EXPECT_NE(words_of("src/base/a.cpp", code), "") << code;
  EXPECT_EQ(words_of("apps/ds4/main.cpp", "std::printf(\"\"); std::getenv(\"A\");"), "");
  EXPECT_EQ(words_of("src/base/a.cpp", "// std::cout\nauto s = \"printf(\"; std::snprintf(s);"),
            "");
  EXPECT_EQ(words_of("src/base/a_test.cpp", "std::getenv(\"A\");"), "");
}

TEST(SizeRuleTest, ExemptionsMayOnlyShrink) {
  const std::string text = std::string(kFileLinesMax + 5, '\n');
  const auto check = [&](const char* exemption) {
    std::vector<Exemption> exemptions = parse_exemptions(exemption);
    Violations out;
    check_sizes({"src/a/b.cpp", text}, exemptions, out);
    check_exemptions_used(exemptions, out);
    return messages(out);
  };
  EXPECT_NE(check("").find("605 lines, more than 600"), std::string::npos);
  EXPECT_EQ(check("src/a/b.cpp 605 # reason\n"), "");
  EXPECT_NE(check("src/a/b.cpp 604\n").find("more than its exemption"), std::string::npos);
  EXPECT_NE(check("src/a/b.cpp 606\n").find("lower its exemption"), std::string::npos);
  EXPECT_NE(check("src/a/b.cpp 605\nsrc/a/c.cpp 700\n").find("remove the exemption"),
            std::string::npos);
}

TEST(SizeRuleTest, MeasuresFunctions) {
  const std::string text = "int f() {\n" + std::string(kFunctionLinesMax, '\n') + "}\n";
  std::vector<Exemption> none;
  Violations out;
  check_sizes({"src/a/b.cpp", text}, none, out);
  EXPECT_EQ(messages(out), "1: f() has 71 lines, more than 70: split it\n");
  std::vector<Exemption> some = parse_exemptions("src/a/b.cpp f 71\n");
  out.clear();
  check_sizes({"src/a/b.cpp", text}, some, out);
  EXPECT_EQ(messages(out), "");
}

TEST(CitationRuleTest, EquationsAndHeadingsMustExist) {
  const ModelPage page = parse_model_page("## 3. Rope and YaRN\n\n**(12)** x = y\n");
  const auto check = [&](const std::string& comment) {
    Violations out;
    check_citations({"src/a/b.h", comment + "\n"}, page, out);
    return out.size();
  };
  EXPECT_EQ(check("// (docs/model.md, rope)"), 0U);
  EXPECT_EQ(check("// docs/model.md, eq. 12"), 0U);
  EXPECT_EQ(check("// (docs/model.md, eq. 13)"), 1U);
  EXPECT_EQ(check("// (docs/model.md, flux)"), 1U);
}

TEST(LinkRuleTest, FindsDocumentsThatASourceNames) {
  const auto documents = cited_documents("// see\n// (docs/formats/a.md, 2) and docs/*.md\n");
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(documents[0].first, "docs/formats/a.md");
  EXPECT_EQ(documents[0].second, 2U);
}

TEST(LinkRuleTest, FindsRelativeTargets) {
  EXPECT_EQ(relative_links("[a](docs/a.md#x) [b](https://e.org/) [c](#here)"),
            (std::vector<std::string>{"docs/a.md"}));
}

}  // namespace
}  // namespace ds4::tidy
