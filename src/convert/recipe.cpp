#include "convert/recipe.h"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::convert {

namespace {

// What a class name of the command line stands for; "all" and "experts" stand for several.
struct ClassName {
  std::string_view name;
  TensorClass tensor_class;
};
constexpr std::array kClassNames = {ClassName{"routed_w1", TensorClass::kRoutedGate},
                                    ClassName{"routed_w2", TensorClass::kRoutedDown},
                                    ClassName{"routed_w3", TensorClass::kRoutedUp},
                                    ClassName{"experts", TensorClass::kRoutedGate},
                                    ClassName{"experts", TensorClass::kRoutedDown},
                                    ClassName{"experts", TensorClass::kRoutedUp},
                                    ClassName{"embedding", TensorClass::kEmbedding},
                                    ClassName{"output", TensorClass::kOutput},
                                    ClassName{"shared", TensorClass::kShared},
                                    ClassName{"attention", TensorClass::kAttention},
                                    ClassName{"attention_other", TensorClass::kAttentionOther},
                                    ClassName{"dense", TensorClass::kDense},
                                    ClassName{"mtp", TensorClass::kMtpProjection}};

bool is_class_name(std::string_view name) {
  return name == "all" || std::any_of(kClassNames.begin(), kClassNames.end(),
                                      [&](const ClassName& c) { return c.name == name; });
}

bool class_includes(std::string_view name, TensorClass tensor_class) {
  return name == "all" ||
         std::any_of(kClassNames.begin(), kClassNames.end(), [&](const ClassName& c) {
           return c.name == name && c.tensor_class == tensor_class;
         });
}

bool fits(ElementType type, const PlannedTensor& tensor) {
  return tensor.columns() % element_type_info(type).values == 0;
}

bool is_position_table(const PlannedTensor& tensor) {
  return tensor.name.ends_with("_ape.weight");
}

}  // namespace

Recipe::Recipe(std::string_view name) : name_(name) {
  using enum ElementType;
  struct Known {
    std::string_view name;
    ElementType gate_up, down, mtp_experts, projection, rest;
  };
  constexpr std::array kKnown = {Known{"q2", kIQ2XXS, kQ2K, kQ4K, kQ8_0, kF16},
                                 Known{"q4", kQ4K, kQ4K, kQ4K, kQ8_0, kF16},
                                 Known{"mxfp4", kMXFP4, kMXFP4, kMXFP4, kQ8_0, kF16},
                                 Known{"q8", kQ8_0, kQ8_0, kQ8_0, kQ8_0, kF16},
                                 Known{"f16", kF16, kF16, kF16, kF16, kF16},
                                 Known{"bf16", kBF16, kBF16, kBF16, kBF16, kBF16},
                                 Known{"f32", kF32, kF32, kF32, kF32, kF32}};
  for (const Known& known : kKnown) {
    if (known.name != name) continue;
    gate_up_ = known.gate_up;
    down_ = known.down;
    mtp_experts_ = known.mtp_experts;
    projection_ = known.projection;
    rest_ = known.rest;
    return;
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("unknown recipe '{}'; expected one of {}", name, names()));
}

void Recipe::add_choice(std::string_view choice) {
  const std::size_t split = choice.find('=');
  if (split == std::string_view::npos || split == 0) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("'{}' was not understood; expected CLASS=TYPE, for example experts=q4_k",
                    choice));
  }
  const std::string_view target = choice.substr(0, split);
  const auto type = element_type_from_name(choice.substr(split + 1));
  if (!type || *type == ElementType::kI32) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("unknown type '{}'; expected one of F32, F16, BF16, Q8_0, Q2_K, Q4_K, "
                            "IQ2_XXS, MXFP4",
                            choice.substr(split + 1)));
  }
  choices_.push_back({std::string(target), is_class_name(target), *type});
}

ElementType Recipe::default_type(const PlannedTensor& tensor) const {
  switch (tensor.tensor_class) {
    case TensorClass::kRoutedGate:
    case TensorClass::kRoutedUp:
      return tensor.mtp ? mtp_experts_ : gate_up_;
    case TensorClass::kRoutedDown:
      return tensor.mtp ? mtp_experts_ : down_;
    case TensorClass::kOutput:
    case TensorClass::kShared:
    case TensorClass::kAttention:
    case TensorClass::kMtpProjection:
      return projection_;
    case TensorClass::kEmbedding:
    case TensorClass::kAttentionOther:
    case TensorClass::kDense:
      return rest_;
    case TensorClass::kVector:
      return ElementType::kF32;
    case TensorClass::kIndices:
      return ElementType::kI32;
  }
  return ElementType::kF32;
}

ElementType Recipe::type_of(const PlannedTensor& tensor, const LogSink& log) const {
  const ElementType usual = default_type(tensor);
  if (tensor.tensor_class == TensorClass::kVector || tensor.tensor_class == TensorClass::kIndices)
    return usual;
  std::optional<ElementType> chosen;
  for (const Choice& choice : choices_) {
    const bool meant = choice.is_class ? class_includes(choice.target, tensor.tensor_class)
                                       : tensor.name.starts_with(choice.target);
    if (meant) chosen = choice.type;
  }
  // A position table is added, not multiplied: it stays plain whatever its class is given.
  if (chosen && is_position_table(tensor) && element_type_info(*chosen).values != 1)
    chosen = ElementType::kF16;
  if (chosen && !fits(*chosen, tensor)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("tensor {} has rows of {} values, but {} comes in blocks of {}; choose "
                            "another type for it with --type {}=TYPE",
                            tensor.name, tensor.columns(), element_type_info(*chosen).name,
                            element_type_info(*chosen).values, tensor.name));
  }
  if (chosen) return *chosen;
  if (fits(usual, tensor)) return usual;
  const ElementType instead =
      fits(ElementType::kQ8_0, tensor) ? ElementType::kQ8_0 : ElementType::kF16;
  ds4::log(log, LogLevel::kWarning,
           fmt::format("{}: rows of {} values do not divide into blocks of {}; storing {}",
                       tensor.name, tensor.columns(), element_type_info(usual).name,
                       element_type_info(instead).name));
  return instead;
}

void Recipe::check_choices(std::span<const PlannedTensor> tensors) const {
  for (const Choice& choice : choices_) {
    if (choice.is_class) continue;
    const bool used = std::any_of(tensors.begin(), tensors.end(), [&](const PlannedTensor& tensor) {
      return tensor.name.starts_with(choice.target);
    });
    if (used) continue;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is neither a class ({}) nor the beginning of a tensor's name",
                            choice.target, class_names()));
  }
}

}  // namespace ds4::convert
