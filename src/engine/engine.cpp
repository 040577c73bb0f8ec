#include "engine/engine.h"

#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"

namespace ds4 {

namespace {

constexpr float kSteeringScaleMax = 100.0F;

void check_scale(float scale) {
  if (std::isfinite(scale) && std::fabs(scale) <= kSteeringScaleMax) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("steering scale is {}; expected -{} to {}", scale, kSteeringScaleMax,
                          kSteeringScaleMax));
}

}  // namespace

Engine::Engine(ModelInfo info,
               std::unique_ptr<Executor> executor,
               std::shared_ptr<const tokenizer::Tokenizer> tokenizer,
               std::shared_ptr<const void> resources)
    : info_(std::move(info)),
      resources_(std::move(resources)),
      executor_(std::move(executor)),
      tokenizer_(std::move(tokenizer)) {}

void Engine::load_steering(const std::string& path, float attention_scale, float ffn_scale) {
  check_scale(attention_scale);
  check_scale(ffn_scale);
  const MappedFile file(path);
  const std::size_t count = std::size_t{config().layer_count} * config().width;
  if (file.bytes().size() != count * sizeof(float)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: {} bytes; expected {} ({} layers of {} little-endian f32)", path,
                            file.bytes().size(), count * sizeof(float), config().layer_count,
                            config().width));
  }
  steering_.directions.resize(count);
  std::memcpy(steering_.directions.data(), file.bytes().data(), file.bytes().size());
  for (const float value : steering_.directions) {
    if (!std::isfinite(value))
      throw Error(ErrorCode::kBadFormat, fmt::format("{}: holds a value that is not finite", path));
  }
  steering_.attention_scale = attention_scale;
  steering_.ffn_scale = ffn_scale;
  executor_->set_steering(steering_);
}

void Engine::set_steering_scale(float ffn_scale) {
  check_scale(ffn_scale);
  if (steering_.directions.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "no steering directions are loaded; start with --dir-steering-file FILE");
  }
  steering_.ffn_scale = ffn_scale;
  executor_->set_steering(steering_);
}

}  // namespace ds4
