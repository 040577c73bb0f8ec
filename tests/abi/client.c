/* A program in C99 that uses libds4 as another language's binding would: through ds4.h alone.
 * Exits 0 when everything it checks holds.
 *
 *   client MODEL DIRECTORY
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ds4.h"

static int failures = 0;

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) {                                                               \
      fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, \
              ds4_last_error());                                                      \
      ++failures;                                                                     \
    }                                                                                 \
  } while (0)

#define REQUIRE(condition)       \
  do {                           \
    const int at = failures;     \
    CHECK(condition);            \
    if (failures != at) exit(1); \
  } while (0)

enum { kPromptMax = 64, kAnswer = 24 };

static int log_lines = 0;

static void count_log(void* user, ds4_log_level level, const char* message) {
  (void)level;
  CHECK(user == &log_lines && message != NULL);
  ++log_lines;
}

static int32_t count_progress(void* user, uint32_t done, uint32_t total) {
  int* calls = user;
  CHECK(done <= total);
  ++*calls;
  return 0;
}

static int32_t stop_at_once(void* user, uint32_t done, uint32_t total) {
  (void)user, (void)done, (void)total;
  return 1;
}

static void check_library(void) {
  CHECK(ds4_abi_version() == DS4_ABI_VERSION);
  CHECK(strlen(ds4_version()) > 0);
  CHECK(strcmp(ds4_status_name(DS4_BAD_FORMAT), "bad_format") == 0);
  CHECK(strcmp(ds4_status_name((ds4_status)99), "unknown") == 0);
  ds4_engine_close(NULL);
  ds4_session_free(NULL);
}

static void expect_open_fails(const char* path, ds4_status expected) {
  ds4_engine_options options;
  ds4_engine* engine = (ds4_engine*)&options; /* must stay as it is */
  ds4_engine_options_init(&options);
  options.model_path = path;
  CHECK(ds4_engine_open(&options, &engine) == expected);
  CHECK(engine == (ds4_engine*)&options);
  CHECK(strlen(ds4_last_error()) > 0);
}

static void check_bad_opens(const char* directory) {
  char path[1024];
  FILE* file;
  ds4_engine_options options;
  ds4_engine* engine = NULL;
  snprintf(path, sizeof path, "%s/none.gguf", directory);
  expect_open_fails(path, DS4_NOT_FOUND);
  expect_open_fails(directory, DS4_INVALID_ARGUMENT);
  expect_open_fails(NULL, DS4_INVALID_ARGUMENT);
  snprintf(path, sizeof path, "%s/not-a-model.gguf", directory);
  file = fopen(path, "wb");
  REQUIRE(file != NULL);
  fputs("this is no model file at all", file);
  fclose(file);
  expect_open_fails(path, DS4_BAD_FORMAT);
  CHECK(ds4_engine_open(NULL, &engine) == DS4_INVALID_ARGUMENT);
  memset(&options, 0, sizeof options);
  CHECK(ds4_engine_open(&options, &engine) == DS4_INVALID_ARGUMENT);
}

static void check_plan(const ds4_engine_options* options) {
  ds4_memory_plan plan;
  char text[4096];
  size_t bytes = 0;
  plan.size = sizeof plan;
  REQUIRE(ds4_plan(options, &plan, text, sizeof text, &bytes) == DS4_OK);
  CHECK(plan.allocated_bytes > 0 && plan.mapped_bytes > 0);
  CHECK(bytes == strlen(text) + 1);
  CHECK(ds4_plan(options, &plan, NULL, 0, NULL) == DS4_OK);
  CHECK(ds4_plan(options, &plan, text, 3, &bytes) == DS4_BUFFER_TOO_SMALL);
  CHECK(bytes > 3);
}

static void check_tokens(const ds4_engine* engine) {
  static const char text[] = "a <think> and a \0 byte";
  ds4_token plain[kPromptMax], trusted[kPromptMax], marker;
  char back[sizeof text];
  size_t plain_count, trusted_count, bytes, i;
  const size_t text_bytes = sizeof text - 1;
  REQUIRE(ds4_tokenize(engine, text, text_bytes, DS4_TEXT_PLAIN, plain, kPromptMax, &plain_count) ==
          DS4_OK);
  REQUIRE(ds4_tokenize(engine, text, text_bytes, DS4_TEXT_TRUSTED, trusted, kPromptMax,
                       &trusted_count) == DS4_OK);
  REQUIRE(ds4_find_marker(engine, "<think>", &marker) == DS4_OK);
  CHECK(ds4_find_marker(engine, "<no such marker>", &marker) == DS4_UNSUPPORTED);
  CHECK(trusted_count < plain_count);
  for (i = 0; i < plain_count; ++i)
    CHECK(plain[i] != marker);
  REQUIRE(ds4_detokenize(engine, plain, plain_count, back, sizeof back, &bytes) == DS4_OK);
  CHECK(bytes == text_bytes && memcmp(back, text, bytes) == 0);
  CHECK(ds4_tokenize(engine, text, text_bytes, DS4_TEXT_PLAIN, NULL, 0, &bytes) ==
        DS4_BUFFER_TOO_SMALL);
  CHECK(bytes == plain_count);
  CHECK(ds4_tokenize(engine, NULL, 0, DS4_TEXT_PLAIN, NULL, 0, &bytes) == DS4_OK && bytes == 0);
  CHECK(ds4_end_token(engine) >= 0);
}

/* Greedy decoding step by step. */
static void answer(ds4_session* session, ds4_token out[kAnswer]) {
  ds4_sampling greedy;
  int i;
  ds4_sampling_init(&greedy);
  greedy.temperature = 0;
  for (i = 0; i < kAnswer; ++i) {
    REQUIRE(ds4_session_sample(session, &greedy, &out[i]) == DS4_OK);
    REQUIRE(ds4_session_eval(session, out[i]) == DS4_OK);
  }
}

static void check_logits(ds4_session* session, uint32_t vocab_size) {
  ds4_token_logprob top[5];
  size_t count = 0, i;
  const float* logits = ds4_session_logits(session, &count);
  REQUIRE(logits != NULL && count == vocab_size);
  REQUIRE(ds4_session_top_logprobs(session, 5, top, &count) == DS4_OK);
  CHECK(count == 5);
  for (i = 0; i < count; ++i) {
    CHECK(top[i].logit == logits[top[i].token] && top[i].logprob < 0);
    CHECK(i == 0 || top[i].logit <= top[i - 1].logit);
  }
}

static void check_state(ds4_session* session,
                        ds4_engine* engine,
                        const char* directory,
                        const ds4_token* expected,
                        uint32_t prompt_length) {
  char path[1024];
  ds4_token again[kAnswer], drafted[kAnswer + 8];
  size_t count, appended, i;
  ds4_session* other = NULL;
  ds4_sampling greedy;
  snprintf(path, sizeof path, "%s/state.ds4", directory);

  REQUIRE(ds4_session_rewind(session, prompt_length + kAnswer + 1) == DS4_INVALID_ARGUMENT);
  REQUIRE(ds4_session_rewind(session, prompt_length - 1) == DS4_OK);
  CHECK(ds4_session_logits(session, &count) == NULL && count == 0);
  CHECK(ds4_session_sample(session, NULL, again) == DS4_INVALID_ARGUMENT);

  /* A saved state goes on in another session as it did in the first. */
  REQUIRE(ds4_session_tokens(session, drafted, kAnswer + 8, &count) == DS4_OK);
  REQUIRE(ds4_session_eval(session, expected[-1]) == DS4_OK);
  REQUIRE(ds4_session_save(session, path) == DS4_OK);
  REQUIRE(ds4_session_create(engine, NULL, &other) == DS4_OK);
  REQUIRE(ds4_session_load(other, path) == DS4_OK);
  CHECK(ds4_session_length(other) == prompt_length);
  answer(other, again);
  CHECK(memcmp(again, expected, sizeof again) == 0);

  /* Drafting gives the same tokens. */
  ds4_sampling_init(&greedy);
  greedy.temperature = 0;
  for (count = 0; count < kAnswer; count += appended) {
    REQUIRE(ds4_session_sample(session, &greedy, &drafted[count]) == DS4_OK);
    REQUIRE(ds4_session_eval_speculative(session, drafted[count], 3, &drafted[count], &appended) ==
            DS4_OK);
    CHECK(appended >= 1 && appended <= 4);
  }
  for (i = 0; i < kAnswer; ++i)
    CHECK(drafted[i] == expected[i]);

  CHECK(ds4_session_load(other, directory) == DS4_INVALID_ARGUMENT);
  CHECK(ds4_session_length(other) == prompt_length + kAnswer);
  REQUIRE(ds4_session_clear(other) == DS4_OK);
  CHECK(ds4_session_length(other) == 0);
  ds4_session_free(other);
}

static void check_session(ds4_engine* engine, uint32_t vocab_size, const char* directory) {
  ds4_session_options options;
  ds4_session* session = NULL;
  ds4_token tokens[1 + kPromptMax + kAnswer]; /* prompt, then the answer */
  size_t prompt_length;
  int progress_calls = 0;
  uint32_t reused = 99;
  const ds4_token beyond = (ds4_token)vocab_size;
  const char text[] = "The quick brown fox";

  ds4_session_options_init(&options);
  options.context = 4;
  REQUIRE(ds4_session_create(engine, &options, &session) == DS4_OK);
  REQUIRE(ds4_tokenize(engine, text, strlen(text), DS4_TEXT_PLAIN, tokens, kPromptMax,
                       &prompt_length) == DS4_OK);
  CHECK(ds4_session_sync(session, tokens, prompt_length, NULL, NULL, NULL) == DS4_CONTEXT_OVERFLOW);
  CHECK(ds4_session_sync(session, tokens, 0, NULL, NULL, NULL) == DS4_INVALID_ARGUMENT);
  CHECK(ds4_session_sync(session, &beyond, 1, NULL, NULL, NULL) == DS4_INVALID_ARGUMENT);
  ds4_session_free(session);
  session = NULL;

  options.checkpoint_interval = 100;
  CHECK(ds4_session_create(engine, &options, &session) == DS4_INVALID_ARGUMENT && session == NULL);
  REQUIRE(ds4_session_create(engine, NULL, &session) == DS4_OK);
  CHECK(ds4_session_eval(session, beyond) == DS4_INVALID_ARGUMENT);
  REQUIRE(ds4_session_sync(session, tokens, prompt_length, count_progress, &progress_calls,
                           &reused) == DS4_OK);
  CHECK(progress_calls > 0 && reused == 0);
  CHECK(ds4_session_length(session) == prompt_length);
  check_logits(session, vocab_size);
  answer(session, tokens + prompt_length);
  REQUIRE(ds4_session_sync(session, tokens, prompt_length + kAnswer, stop_at_once, NULL, &reused) ==
          DS4_OK); /* nothing to do, so nothing to stop */
  CHECK(reused == prompt_length + kAnswer);
  check_state(session, engine, directory, tokens + prompt_length, (uint32_t)prompt_length);
  ds4_session_free(session);
}

int main(int argc, char** argv) {
  ds4_engine_options options;
  ds4_engine_info info;
  ds4_engine* engine = NULL;
  if (argc != 3) {
    fprintf(stderr, "usage: client MODEL DIRECTORY\n");
    return 2;
  }
  check_library();
  check_bad_opens(argv[2]);
  ds4_engine_options_init(&options);
  options.model_path = argv[1];
  options.context = 1024;
  options.log = count_log;
  options.log_user = &log_lines;
  check_plan(&options);
  REQUIRE(ds4_engine_open(&options, &engine) == DS4_OK);
  info.size = sizeof info;
  REQUIRE(ds4_engine_get_info(engine, &info) == DS4_OK);
  CHECK(info.context == 1024 && info.vocab_size > 0 && strlen(info.fingerprint) == 64);
  CHECK(ds4_engine_set_power(engine, 0) == DS4_INVALID_ARGUMENT);
  CHECK(ds4_engine_set_power(engine, 100) == DS4_OK);
  check_tokens(engine);
  check_session(engine, info.vocab_size, argv[2]);
  ds4_engine_close(engine);
  if (failures == 0) printf("ds4 %s, ABI %u: all checks hold\n", ds4_version(), ds4_abi_version());
  return failures == 0 ? 0 : 1;
}
