/* ds4: a native engine for DeepSeek V4 models, as a C library.
 *
 * Conventions
 *
 *  1. Handles (ds4_engine, ds4_session) are opaque and made by the library.  Each has one function
 *     that frees it; freeing NULL does nothing.  Free the sessions of an engine before the engine.
 *  2. A function that can fail returns a ds4_status.  On anything but DS4_OK its outputs are
 *     unchanged, except where its comment says otherwise, and ds4_last_error() of the same thread
 *     is one clear message.
 *  3. Nothing prints, ends the process, raises a signal on purpose or lets an exception out.
 *     Messages go to the log callback of the options, or nowhere.
 *  4. An engine and all its sessions belong to one thread at a time.  Different engines are
 *     independent.  ds4_engine_get_info(), the tokenizer functions and the functions without a
 * handle may be called from any thread.
 *  5. Option structs begin with their size: fill them with their _init function, then change what
 *     you need.  New fields come at the end, and a size of an older release means their defaults.
 *  6. Text is UTF-8 with an explicit length in bytes and may hold zero bytes; paths and names end
 *     in zero.  Strings handed out live as long as their comment says.
 *  7. Functions that fill a buffer take its capacity and always store how many elements there are.
 *     When that is more than the capacity nothing is written and the status is
 *     DS4_BUFFER_TOO_SMALL; a capacity of 0 with a NULL buffer asks for the count.
 *  8. The numbers of statuses and enumerators never change.  DS4_ABI_VERSION grows when something
 * is added; a program built against an older one keeps working.
 *  9. Callbacks run on the thread that made the call, between steps of its work; they must not call
 *     the library with the same engine.
 */
#ifndef DS4_H
#define DS4_H

/* C in C's own style. */
/* NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using,readability-identifier-naming) */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DS4_API __attribute__((visibility("default")))
#else
#define DS4_API
#endif

#define DS4_ABI_VERSION 1u

typedef struct ds4_engine ds4_engine;
typedef struct ds4_session ds4_session;

typedef int32_t ds4_token;

typedef enum ds4_status {
  DS4_OK = 0,
  DS4_INVALID_ARGUMENT = 1, /* an argument or option is wrong */
  DS4_NOT_FOUND = 2,        /* a file does not exist */
  DS4_BAD_FORMAT = 3,       /* a file or state is not what it claims to be */
  DS4_UNSUPPORTED = 4,      /* well-formed, but nothing here can run it */
  DS4_CONTEXT_OVERFLOW = 5, /* the tokens do not fit the context */
  DS4_OUT_OF_MEMORY = 6,
  DS4_IO = 7,        /* reading or writing failed; the disk is full */
  DS4_CANCELLED = 8, /* a callback asked to stop */
  DS4_DEVICE = 9,    /* an accelerator failed: close the engine */
  DS4_BUSY = 10,     /* a limit was reached; the same call may succeed later */
  DS4_INTERNAL = 11, /* a defect of the library */
  DS4_BUFFER_TOO_SMALL = 12
} ds4_status;

/* ---- the library ---- */

/* The DS4_ABI_VERSION that the library was built with. */
DS4_API uint32_t ds4_abi_version(void);
/* E.g. "0.1.0".  Lives for ever. */
DS4_API const char* ds4_version(void);
/* Lower-case name, e.g. "bad_format"; "unknown" for a number that is none.  Lives for ever. */
DS4_API const char* ds4_status_name(ds4_status status);
/* The message of the last failure on this thread; "" before the first.  Lives until the next call
 * that fails on this thread. */
DS4_API const char* ds4_last_error(void);

/* ---- opening a model ---- */

typedef enum ds4_log_level {
  DS4_LOG_DEBUG = 0,
  DS4_LOG_INFO = 1,
  DS4_LOG_WARNING = 2,
  DS4_LOG_ERROR = 3
} ds4_log_level;

/* `message` ends in zero and lives during the call.  May be called from any thread of the library.
 */
typedef void (*ds4_log_fn)(void* user, ds4_log_level level, const char* message);

typedef enum ds4_row_codec {
  DS4_ROWS_PACKED = 0, /* the past as the model was trained with; the default */
  DS4_ROWS_EXACT = 1   /* f32 without rounding: for comparisons alone */
} ds4_row_codec;

typedef struct ds4_engine_options {
  size_t size;                    /* sizeof(ds4_engine_options) */
  const char* model_path;         /* GGUF file; required */
  const char* mtp_path;           /* file with the drafting block; NULL: the model's own, if any */
  const char* backend;            /* "auto", "cpu", ...; NULL: "auto" */
  const char* steering_path;      /* directions, f32 [layers, width]; NULL: none */
  float steering_attention_scale; /* -100 to 100 */
  float steering_ffn_scale;       /* -100 to 100 */
  uint32_t thread_count;          /* 0: one a physical core */
  uint32_t prefill_chunk;         /* tokens of one prefill step; 0: the backend's */
  uint32_t context;               /* of the sessions to come; 0: 32768, or the model's if smaller */
  uint32_t session_count;         /* sessions at one time that the memory plan counts */
  ds4_row_codec row_codec;
  int32_t use_mtp;      /* 0: leave the drafting block out */
  int32_t warm_weights; /* 1: read all weights before returning */
  ds4_log_fn log;       /* NULL: no messages */
  void* log_user;
} ds4_engine_options;

DS4_API void ds4_engine_options_init(ds4_engine_options* options);

typedef struct ds4_memory_plan {
  size_t size;              /* sizeof(ds4_memory_plan), set by the caller */
  uint64_t allocated_bytes; /* what opening and the sessions allocate */
  uint64_t mapped_bytes;    /* read through the model file's pages */
  uint64_t available_bytes; /* of the memory that allocations come from; 0: not known */
} ds4_memory_plan;

/* What opening would take, from the file's header alone.  `text`, when not NULL, gets one line an
 * item, ended by zero; convention 7 with text_bytes, which counts the zero. */
DS4_API ds4_status ds4_plan(const ds4_engine_options* options,
                            ds4_memory_plan* plan,
                            char* text,
                            size_t text_capacity,
                            size_t* text_bytes);

DS4_API ds4_status ds4_engine_open(const ds4_engine_options* options, ds4_engine** engine);
DS4_API void ds4_engine_close(ds4_engine* engine);

typedef struct ds4_engine_info {
  size_t size;      /* sizeof(ds4_engine_info), set by the caller */
  const char* name; /* these four live as long as the engine */
  const char* quantisation;
  const char* fingerprint; /* of the weights, 64 hexadecimal digits */
  const char* backend;
  uint64_t file_bytes;
  uint64_t context_max; /* positions that the model was made for */
  uint32_t context;     /* the default of its sessions */
  uint32_t vocab_size;
  uint32_t layer_count;
  int32_t has_mtp;
} ds4_engine_info;

DS4_API ds4_status ds4_engine_get_info(const ds4_engine* engine, ds4_engine_info* info);

/* Lets the machine work `percent` (1 to 100) of the time.  Results do not change.  Any thread. */
DS4_API ds4_status ds4_engine_set_power(ds4_engine* engine, int32_t percent);

/* ---- tokens ---- */

typedef enum ds4_text_kind {
  DS4_TEXT_PLAIN = 0,  /* never yields a marker token: for anything that a user wrote */
  DS4_TEXT_TRUSTED = 1 /* markers such as "<think>" become their tokens */
} ds4_text_kind;

DS4_API ds4_status ds4_tokenize(const ds4_engine* engine,
                                const char* text,
                                size_t text_bytes,
                                ds4_text_kind kind,
                                ds4_token* tokens,
                                size_t token_capacity,
                                size_t* token_count);

/* The bytes of the tokens, joined; not ended by zero.  May begin or end inside a character. */
DS4_API ds4_status ds4_detokenize(const ds4_engine* engine,
                                  const ds4_token* tokens,
                                  size_t token_count,
                                  char* text,
                                  size_t text_capacity,
                                  size_t* text_bytes);

/* The token of the marker with this literal name, e.g. "<think>". */
DS4_API ds4_status ds4_find_marker(const ds4_engine* engine, const char* name, ds4_token* token);
/* The token that ends an answer. */
DS4_API ds4_token ds4_end_token(const ds4_engine* engine);

/* ---- sessions ---- */

/* One conversation: tokens and the state that belongs to them. */
typedef struct ds4_session_options {
  size_t size;                  /* sizeof(ds4_session_options) */
  uint32_t context;             /* tokens at most; 0: the engine's */
  uint32_t checkpoint_interval; /* a rewind replays fewer tokens; a multiple of 128 */
  uint32_t checkpoint_count;
  uint64_t seed; /* of the sampler, not 0 */
} ds4_session_options;

DS4_API void ds4_session_options_init(ds4_session_options* options);
/* options NULL: the defaults. */
DS4_API ds4_status ds4_session_create(ds4_engine* engine,
                                      const ds4_session_options* options,
                                      ds4_session** session);
DS4_API void ds4_session_free(ds4_session* session);

/* Tokens done and to do; anything but 0 asks to stop. */
typedef int32_t (*ds4_progress_fn)(void* user, uint32_t done, uint32_t total);

/* Makes the session's tokens equal to these, reusing what it can, and its logits those of the last
 * one.  At least one token, fewer than the context.  `progress` may be NULL; `reused`, when not
 * NULL, gets how many tokens were kept.  After DS4_CANCELLED what was done stays, and the same call
 * goes on from there. */
DS4_API ds4_status ds4_session_sync(ds4_session* session,
                                    const ds4_token* tokens,
                                    size_t token_count,
                                    ds4_progress_fn progress,
                                    void* progress_user,
                                    uint32_t* reused);

/* Appends one token. */
DS4_API ds4_status ds4_session_eval(ds4_session* session, ds4_token token);

/* Appends `first` and up to draft_count tokens that greedy decoding would choose after it, none
 * behind the end token.  Convention 7 does not hold: `appended` must have room for draft_count + 1
 * tokens. */
DS4_API ds4_status ds4_session_eval_speculative(ds4_session* session,
                                                ds4_token first,
                                                uint32_t draft_count,
                                                ds4_token* appended,
                                                size_t* appended_count);

typedef struct ds4_sampling {
  size_t size;       /* sizeof(ds4_sampling) */
  float temperature; /* 0: the likeliest token */
  int32_t top_k;     /* 0: all */
  float top_p;
  float min_p;
} ds4_sampling;

DS4_API void ds4_sampling_init(ds4_sampling* sampling);
/* Draws the next token from the session's logits; appends nothing.  sampling NULL: the defaults. */
DS4_API ds4_status ds4_session_sample(ds4_session* session,
                                      const ds4_sampling* sampling,
                                      ds4_token* token);

/* The logits of the last token, [vocab_size]; NULL when there are none.  They live until the next
 * call that changes the session. */
DS4_API const float* ds4_session_logits(const ds4_session* session, size_t* count);

typedef struct ds4_token_logprob {
  ds4_token token;
  float logit;
  double logprob; /* natural logarithm, at temperature 1 */
} ds4_token_logprob;

/* The likeliest tokens, the best first: `count` of them, or as many as there are. */
DS4_API ds4_status ds4_session_top_logprobs(ds4_session* session,
                                            size_t count,
                                            ds4_token_logprob* top,
                                            size_t* top_count);

DS4_API uint32_t ds4_session_length(const ds4_session* session);
DS4_API uint32_t ds4_session_context(const ds4_session* session);
/* The session's tokens; convention 7. */
DS4_API ds4_status ds4_session_tokens(const ds4_session* session,
                                      ds4_token* tokens,
                                      size_t token_capacity,
                                      size_t* token_count);

/* Drops the tokens from `length` on; the logits are gone until the next sync or eval. */
DS4_API ds4_status ds4_session_rewind(ds4_session* session, uint32_t length);
DS4_API ds4_status ds4_session_clear(ds4_session* session);

/* Writes the exact state to a file: as a whole or not at all, readable by its owner alone. */
DS4_API ds4_status ds4_session_save(const ds4_session* session, const char* path);
/* Replaces the session's state by a saved one of the same model. */
DS4_API ds4_status ds4_session_load(ds4_session* session, const char* path);

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-use-using,readability-identifier-naming) */

#endif /* DS4_H */
